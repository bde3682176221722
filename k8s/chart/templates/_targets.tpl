{{- /* Addresses and ports of the servers that processes call. */ -}}

{{- /* The ports of one URL or of several, separated by `;`; each may name several hosts: host[:port],host[:port]. */ -}}
{{- define "citadel.ports" -}}
{{- $defaults := dict "http" 80 "https" 443 "redis" 6379 "rediss" 6379 "sentinel" 26379 "postgresql" 5432 "postgres" 5432 -}}
{{- $port := .port -}}{{- $ports := list -}}
{{- range $url := splitList ";" .url -}}
{{- $default := $port | default (index $defaults (regexFind "^[a-z]+" $url)) -}}
{{- range splitList "," (regexReplaceAll "^[a-z+]+://([^/@]*@)?([^/?]*).*$" $url "${2}") -}}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $default | int) -}}
{{- end -}}
{{- end -}}
{{- $ports | uniq | toJson -}}
{{- end }}

{{- /*
A target as a map: `bundled` (the component, if the chart runs the server), `urls`, and `ports`. A target that is not
configured has no URLs.
*/ -}}
{{- define "citadel.target" -}}
{{- $root := index . 0 -}}{{- $target := index . 1 -}}{{- $values := $root.Values -}}
{{- $urls := list -}}{{- $port := 0 -}}{{- $bundled := list -}}
{{- if eq $target "broker" -}}
{{- if $values.broker.bundled.enabled }}{{ $bundled = append $bundled "broker" }}{{ end -}}
{{- range compact (list $values.broker.url $values.broker.resultUrl) }}{{ $urls = append $urls . }}{{ end -}}
{{- else if eq $target "cache" -}}
{{- if $values.cache.bundled.enabled }}{{ $bundled = append $bundled "cache" }}{{ else }}{{ $urls = list $values.cache.url }}{{ end -}}
{{- else if eq $target "postgres" -}}
{{- if $values.postgres.bundled.enabled }}{{ $bundled = append $bundled "postgres" }}{{ else }}{{ $urls = list $values.postgres.dsn }}{{ end -}}
{{- else if eq $target "qdrant" -}}
{{- $port = 6333 -}}
{{- if $values.qdrant.bundled.enabled }}{{ $bundled = append $bundled "qdrant" }}{{ else }}{{ $urls = list $values.qdrant.url }}{{ end -}}
{{- else if eq $target "backends" -}}
{{- if $values.ollama.bundled.enabled }}{{ $bundled = append $bundled "ollama" }}{{ end -}}
{{- range $values.backends }}{{ $urls = concat $urls (.urls | default list) }}{{ end -}}
{{- else if eq $target "llm" -}}
{{- range $values.llm.endpoints }}{{ $urls = append $urls .url }}{{ end -}}
{{- else if eq $target "otlp" -}}
{{- $urls = compact (list $values.telemetry.otlp.endpoint) -}}
{{- end -}}
{{- if and (has $target (list "backends" "llm")) $values.ollama.bundled.enabled -}}
{{- /* A URL of the bundled Ollama leads to its pod. */ -}}
{{- $own := printf "http://%s:11434" (include "citadel.name" (list $root "ollama")) -}}
{{- $others := list -}}
{{- range $urls -}}
{{- if hasPrefix $own . }}{{ $bundled = uniq (append $bundled "ollama") }}{{ else }}{{ $others = append $others . }}{{ end -}}
{{- end -}}
{{- $urls = $others -}}
{{- end -}}
{{- $ports := list -}}
{{- range $urls }}{{ $ports = concat $ports (include "citadel.ports" (dict "url" . "port" $port) | fromJsonArray) }}{{ end -}}
{{- dict "bundled" $bundled "urls" $urls "ports" ($ports | uniq | sortAlpha) | toJson -}}
{{- end }}

{{- define "citadel.bundledPorts" -}}
broker: 6379
cache: 6379
postgres: 5432
qdrant: 6333
ollama: 11434
{{- end }}

{{- define "citadel.brokerUrl" -}}
{{- if .Values.broker.bundled.enabled -}}
redis://{{ include "citadel.name" (list . "broker") }}:6379/0
{{- else }}{{ .Values.broker.url }}{{ end -}}
{{- end }}
