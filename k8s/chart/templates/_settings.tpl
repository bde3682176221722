{{- /* The environment of a process: it depends on its kind and on the servers that it calls. */ -}}

{{- /* Variables by name; takes (list $ process). Settings of the process override settings of all processes. */ -}}
{{- define "citadel.settings" -}}
{{- $root := index . 0 -}}{{- $process := index . 1 -}}{{- $values := $root.Values -}}{{- $calls := $process.calls -}}
{{- $env := dict "CITADEL_SECRETS_DIR" "/etc/citadel/secrets" "CITADEL_LOG__FORMAT" "json" "CITADEL_LOG__LEVEL" $values.log.level -}}
{{- $own := include "citadel.ownSettings" (list $root $process) | fromYaml -}}
{{- if has "broker" $calls -}}
{{- $_ := set $env "CITADEL_BROKER_URL" (include "citadel.brokerUrl" $root) -}}
{{- with $values.broker.resultUrl }}{{ $_ := set $env "CITADEL_RESULT_URL" . }}{{ end -}}
{{- with $values.broker.sentinelMaster }}{{ $_ := set $env "CITADEL_STORES__SENTINEL_MASTER" . }}{{ end -}}
{{- $_ := set $env "CITADEL_DEFAULT_MODEL" $values.defaultModel -}}
{{- end -}}
{{- if has "cache" $calls -}}
{{- $_ := set $env "CITADEL_CACHE_URL" (ternary (printf "redis://%s:6379/0" (include "citadel.name" (list $root "cache"))) $values.cache.url $values.cache.bundled.enabled) -}}
{{- end -}}
{{- if has "postgres" $calls -}}
{{- $_ := set $env "CITADEL_POSTGRES_DSN" (ternary (printf "postgresql://citadel@%s:5432/citadel" (include "citadel.name" (list $root "postgres"))) $values.postgres.dsn $values.postgres.bundled.enabled) -}}
{{- $stored := ternary (ternary 4294967296 0 $values.postgres.bundled.enabled) $values.postgres.maxStoredBytes (kindIs "invalid" $values.postgres.maxStoredBytes) | int64 -}}
{{- if $stored }}{{ $_ := set $env "CITADEL_STORAGE__MAX_BYTES" (toString $stored) }}{{ end -}}
{{- with $values.postgres.searchPath }}{{ $_ := set $env "CITADEL_POSTGRES__SEARCH_PATH" . }}{{ end -}}
{{- if eq $process.kind "api" }}{{ with $values.postgres.directDsn }}{{ $_ := set $env "CITADEL_POSTGRES__DIRECT_DSN" . }}{{ end }}{{ end -}}
{{- if eq $process.kind "migrate" -}}
{{- with $values.postgres.migrationDsn }}{{ $_ := set $env "CITADEL_POSTGRES__MIGRATION_DSN" . }}{{ end -}}
{{- with $values.postgres.grantTo }}{{ $_ := set $env "CITADEL_POSTGRES__GRANT_TO" . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if has "qdrant" $calls -}}
{{- $_ := set $env "CITADEL_QDRANT__URL" (ternary (printf "http://%s:6333" (include "citadel.name" (list $root "qdrant"))) $values.qdrant.url $values.qdrant.bundled.enabled) -}}
{{- end -}}
{{- if has "backends" $calls }}{{ $env = merge $env (include "citadel.backendSettings" $root | fromYaml) }}{{ end -}}
{{- if or (has "llm" $calls) (eq $process.kind "api") -}}
{{- range $name, $endpoint := $values.llm.endpoints -}}
{{- range $key, $value := $endpoint }}{{ $_ := set $env (printf "CITADEL_LLM__ENDPOINTS__%s__%s" $name (snakecase $key | upper)) (toString $value) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if and (has "otlp" $calls) $values.telemetry.otlp.endpoint -}}
{{- with $values.telemetry.otlp -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" .endpoint -}}
{{- $_ := set $env "OTEL_EXPORTER_OTLP_PROTOCOL" .protocol -}}
{{- $_ := set $env "OTEL_TRACES_SAMPLER" .sampler -}}
{{- if .samplerArg }}{{ $_ := set $env "OTEL_TRACES_SAMPLER_ARG" (toString .samplerArg) }}{{ end -}}
{{- end -}}
{{- $_ := set $env "OTEL_RESOURCE_ATTRIBUTES" "k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME)" -}}
{{- end -}}
{{- range $key, $value := mergeOverwrite (dict) $values.settings ($process.values.settings | default dict) }}{{ $_ := set $own $key (toString $value) }}{{ end -}}
{{- mergeOverwrite $env $own | toYaml -}}
{{- end }}

{{- /* Variables that depend on the kind of process. */ -}}
{{- define "citadel.ownSettings" -}}
{{- $root := index . 0 -}}{{- $process := index . 1 -}}{{- $own := $process.values -}}
{{- if eq $process.kind "worker" }}
CITADEL_WORKER__CONCURRENCY: {{ $own.concurrency | toString | quote }}
CITADEL_WORKER__BATCH_CONCURRENCY: {{ $own.batchConcurrency | toString | quote }}
CITADEL_WORKER__STOP_GRACE: {{ $own.stopGrace | toString | quote }}
CITADEL_WORKER__HEALTH_FILE: /run/citadel/health
CITADEL_TELEMETRY__METRICS_HOST: 0.0.0.0
CITADEL_TELEMETRY__METRICS_PORT: "9464"
{{- else if eq $process.kind "beat" }}
CITADEL_BEAT__HEALTH_FILE: /run/citadel/health
CITADEL_TELEMETRY__METRICS_HOST: 0.0.0.0
CITADEL_TELEMETRY__METRICS_PORT: "9464"
{{- else if eq $process.kind "api" }}
CITADEL_API__HOST: 0.0.0.0
CITADEL_API__PORT: "8080"
CITADEL_API__WORKERS: {{ $own.processes | toString | quote }}
CITADEL_API__GRACEFUL_TIMEOUT: {{ $own.gracefulTimeout | toString | quote }}
{{- else if eq $process.kind "exporter" }}
CITADEL_EXPORTER__HOST: 0.0.0.0
CITADEL_EXPORTER__PORT: "9808"
{{- end }}
{{- end }}

{{- define "citadel.backendSettings" -}}
{{- $backends := deepCopy .Values.backends -}}
{{- if .Values.ollama.bundled.enabled -}}
{{- $url := printf "http://%s:11434" (include "citadel.name" (list . "ollama")) -}}
{{- $_ := set $backends "ollama" (dict "kind" "ollama" "urls" (list $url) "keepAlive" "30m" "threads" .Values.ollama.bundled.threads) -}}
{{- end -}}
{{- $env := dict -}}
{{- range $name, $backend := $backends -}}
{{- range $key, $value := $backend -}}
{{- $_ := set $env (printf "CITADEL_EMBEDDINGS__BACKENDS__%s__%s" $name (snakecase $key | upper)) (ternary (join "," $value) (toString $value) (kindIs "slice" $value)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $env -}}
{{- end }}

{{- /* The keys of the Secret that a process sees, as files named like settings; takes (list $ process). */ -}}
{{- define "citadel.secretKeys" -}}
{{- $values := (index . 0).Values -}}{{- $process := index . 1 -}}{{- $calls := $process.calls -}}
{{- $keys := list -}}
{{- if has "broker" $calls }}{{ $keys = append $keys "citadel_broker_password" }}{{ end -}}
{{- if and (has "broker" $calls) $values.broker.resultUrl }}{{ $keys = append $keys "citadel_result_password" }}{{ end -}}
{{- if has "cache" $calls }}{{ $keys = append $keys "citadel_cache_password" }}{{ end -}}
{{- if has "postgres" $calls }}{{ $keys = append $keys "citadel_postgres_password" }}{{ end -}}
{{- if and (eq $process.kind "migrate") $values.postgres.migrationDsn }}{{ $keys = append $keys "citadel_postgres__migration_password" }}{{ end -}}
{{- $servers := list -}}
{{- if has "qdrant" $calls }}{{ $servers = append $servers "citadel_qdrant" }}{{ end -}}
{{- if has "backends" $calls }}{{ range $name, $_ := $values.backends }}{{ $servers = append $servers (printf "citadel_embeddings__backends__%s" $name) }}{{ end }}{{ end -}}
{{- if has "llm" $calls }}{{ range $name, $_ := $values.llm.endpoints }}{{ $servers = append $servers (printf "citadel_llm__endpoints__%s" $name) }}{{ end }}{{ end -}}
{{- range $server := $servers }}{{ range list "api_key" "headers" "proxy" }}{{ $keys = append $keys (printf "%s__%s" $server .) }}{{ end }}{{ end -}}
{{- if eq $process.kind "api" }}{{ $keys = append $keys "citadel_api__keys" }}{{ end -}}
{{- toYaml $keys -}}
{{- end }}
