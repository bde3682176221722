{{- /* The processes, and the servers that each calls. */ -}}

{{- /*
The servers that a process calls. Its settings, its secrets and its NetworkPolicy follow from this table, which matches
the one in ARCHITECTURE.md.
*/ -}}
{{- define "citadel.calls" -}}
api: [broker, cache, postgres, otlp]
embeddings: [broker, cache, backends, otlp]
orchestration: [broker, postgres, qdrant, llm, otlp]
monitoring: [broker, cache, postgres, qdrant, backends, llm, otlp]
maintenance: [broker, cache, postgres, otlp]
beat: [broker, otlp]
exporter: [broker, cache, postgres]
migrate: [postgres]
{{- end }}

{{- /* The enabled workers by name, each with all its keys. */ -}}
{{- define "citadel.workers" -}}
{{- $workers := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- $worker := mergeOverwrite (deepCopy $.Values.workerDefaults) (deepCopy ($own | default dict)) -}}
{{- if $worker.enabled }}{{ $_ := set $workers $name $worker }}{{ end -}}
{{- end -}}
{{- toYaml $workers -}}
{{- end }}

{{- /* Every process by name: its kind, the service of its image, the servers that it calls, its values, its priority class. */ -}}
{{- define "citadel.processes" -}}
{{- $calls := include "citadel.calls" . | fromYaml -}}
{{- $all := dict -}}
{{- range $name, $worker := include "citadel.workers" . | fromYaml -}}
{{- $service := $worker.service -}}
{{- $background := has $service (list "monitoring" "maintenance") -}}
{{- $_ := set $all $name (dict "name" $name "kind" "worker" "service" $service "calls" (index $calls $service) "values" $worker "class" (ternary "background" "serving" $background)) -}}
{{- end -}}
{{- $_ := set $all "api" (dict "name" "api" "kind" "api" "service" "orchestration" "calls" $calls.api "values" .Values.api "class" "serving") -}}
{{- $_ := set $all "beat" (dict "name" "beat" "kind" "beat" "service" "maintenance" "calls" $calls.beat "values" .Values.beat "class" "background") -}}
{{- $_ := set $all "exporter" (dict "name" "exporter" "kind" "exporter" "service" "monitoring" "calls" $calls.exporter "values" .Values.exporter "class" "background") -}}
{{- if .Values.migrate.enabled -}}
{{- $_ := set $all "migrate" (dict "name" "migrate" "kind" "migrate" "service" "orchestration" "calls" $calls.migrate "values" .Values.migrate "class" "background") -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{- /* True if an autoscaler sets the number of replicas. */ -}}
{{- define "citadel.scaled" -}}
{{- if or (dig "keda" "enabled" false .) (dig "hpa" "enabled" false .) }}true{{ end -}}
{{- end }}
