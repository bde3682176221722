{{- /* Checks that the schema cannot express. Each problem is a sentence that says what to set. */ -}}

{{- define "citadel.problems" -}}
{{- $problems := list -}}
{{- $found := include "citadel.storeProblems" . | fromYamlArray -}}
{{- $problems = concat $problems $found -}}
{{- range $name, $worker := include "citadel.workers" . | fromYaml -}}
{{- $problems = concat $problems (include "citadel.workerProblems" (list $ (printf "workers.%s" $name) $worker) | fromYamlArray) -}}
{{- end -}}
{{- if and .Values.api.hpa.enabled (gt (int .Values.api.hpa.minReplicas) (int .Values.api.hpa.maxReplicas)) -}}
{{- $problems = append $problems "api.hpa: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- range $where, $settings := include "citadel.allSettings" . | fromYaml -}}
{{- $problems = concat $problems (include "citadel.settingProblems" (list $where $settings) | fromYamlArray) -}}
{{- end -}}
{{- with include "citadel.connectionProblem" . }}{{ $problems = append $problems . }}{{ end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- $problems = append $problems "ingress.host is empty: an Ingress without one would take every host's requests" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- $problems = append $problems "httpRoute.parentRefs is empty: name the Gateway that the route belongs to" -}}
{{- end -}}
{{- if and .Values.priorityClasses.create (le (int .Values.priorityClasses.serving) (int .Values.priorityClasses.background)) -}}
{{- $problems = append $problems "priorityClasses.serving must be above priorityClasses.background" -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end }}

{{- define "citadel.storeProblems" -}}
{{- $problems := list -}}
{{- $keys := dict "broker" "url" "cache" "url" "postgres" "dsn" "qdrant" "url" -}}
{{- range $store, $key := $keys -}}
{{- $given := index $.Values $store -}}{{- $url := index $given $key -}}
{{- if and $url $given.bundled.enabled -}}
{{- $problems = append $problems (printf "%s.%s is given and %s.bundled.enabled is true: set %s.bundled.enabled=false to use yours" $store $key $store $store) -}}
{{- else if not (or $url $given.bundled.enabled) -}}
{{- $problems = append $problems (printf "%s.%s is empty: give the URL of a server, or set %s.bundled.enabled=true for a trial" $store $key $store) -}}
{{- end -}}
{{- end -}}
{{- $urls := dict "broker.url" .Values.broker.url "broker.resultUrl" .Values.broker.resultUrl "cache.url" .Values.cache.url "postgres.dsn" .Values.postgres.dsn "postgres.directDsn" .Values.postgres.directDsn "postgres.migrationDsn" .Values.postgres.migrationDsn "qdrant.url" .Values.qdrant.url -}}
{{- range $where, $url := $urls -}}
{{- if regexMatch "(^|;)[a-z]+://[^/@;]*:[^/@;]*@" $url -}}
{{- $problems = append $problems (printf "%s holds a password: put it into the Secret (k8s/README.md lists its keys) and keep only the user name in the URL" $where) -}}
{{- end -}}
{{- end -}}
{{- if and (hasPrefix "sentinel://" .Values.broker.url) (not .Values.broker.sentinelMaster) -}}
{{- $problems = append $problems "broker.sentinelMaster is empty: a sentinel:// URL needs the master's name" -}}
{{- end -}}
{{- if not (or .Values.backends .Values.ollama.bundled.enabled) -}}
{{- $problems = append $problems "backends is empty: give at least one embedding backend, or set ollama.bundled.enabled=true for a trial" -}}
{{- end -}}
{{- if and .Values.ollama.bundled.enabled (hasKey .Values.backends "ollama") -}}
{{- $problems = append $problems "backends.ollama is given and ollama.bundled.enabled is true, which is a backend of that name: give yours another name or set ollama.bundled.enabled=false" -}}
{{- end -}}
{{- range $name, $backend := .Values.backends -}}
{{- if and (ne $backend.kind "local") (not $backend.urls) -}}
{{- $problems = append $problems (printf "backends.%s.urls is empty: a backend of kind %s needs at least one URL" $name $backend.kind) -}}
{{- end -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end }}

{{- /* Connections to PostgreSQL that all processes may open (docs/stores.md), during an update too: one pod more of each. */ -}}
{{- define "citadel.connections" -}}
{{- $terms := list -}}{{- $sum := 0 -}}
{{- $api := .Values.api -}}
{{- $replicas := add1 (ternary $api.hpa.maxReplicas $api.replicas $api.hpa.enabled | int) -}}
{{- $pool := add 2 (include "citadel.poolSize" (list . $api)) -}}
{{- $sum = add $sum (mul $replicas (int $api.processes) $pool) -}}
{{- $terms = append $terms (printf "api %d pods x %d processes x %d" $replicas (int $api.processes) $pool) -}}
{{- range $name, $worker := include "citadel.workers" . | fromYaml -}}
{{- if has $worker.service (list "orchestration" "maintenance" "monitoring") -}}
{{- $replicas := add1 (int $worker.replicas) -}}
{{- if $worker.keda.enabled }}{{ $replicas = add1 (int $worker.keda.maxReplicas) }}{{ end -}}
{{- if $worker.hpa.enabled }}{{ $replicas = add1 (int $worker.hpa.maxReplicas) }}{{ end -}}
{{- $each := 1 -}}
{{- if ne $worker.service "monitoring" }}{{ $each = include "citadel.poolSize" (list $ $worker) | int }}{{ end -}}
{{- $sum = add $sum (mul $replicas $each) -}}
{{- $terms = append $terms (printf "workers.%s %d pods x %d" $name $replicas $each) -}}
{{- end -}}
{{- end -}}
{{- dict "sum" (add $sum 4) "terms" (append $terms "exporter 2 + migration 2") | toJson -}}
{{- end }}

{{- define "citadel.poolSize" -}}
{{- $settings := mergeOverwrite (dict) (index . 0).Values.settings ((index . 1).settings | default dict) -}}
{{- index $settings "CITADEL_POSTGRES__POOL_SIZE" | default 10 | int -}}
{{- end }}

{{- define "citadel.connectionProblem" -}}
{{- $most := int .Values.postgres.maxConnections -}}{{- $needed := include "citadel.connections" . | fromJson -}}
{{- if and (gt $most 0) (gt (int $needed.sum) (sub $most 3 | int)) -}}
postgres.maxConnections is {{ $most }}, of which PostgreSQL reserves 3, and the processes may open {{ int $needed.sum }} ({{ join ", " $needed.terms }}): raise it to what your server or pooler takes, or lower replicas, or CITADEL_POSTGRES__POOL_SIZE in settings
{{- end -}}
{{- end }}

{{- define "citadel.workerProblems" -}}
{{- $root := index . 0 -}}{{- $where := index . 1 -}}{{- $worker := index . 2 -}}
{{- $problems := list -}}
{{- if and $worker.keda.enabled $worker.hpa.enabled -}}
{{- $problems = append $problems (printf "%s has keda.enabled and hpa.enabled: two autoscalers would change the same replicas; choose one" $where) -}}
{{- end -}}
{{- range $scaler := list "keda" "hpa" -}}
{{- with index $worker $scaler -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- $problems = append $problems (printf "%s.%s: minReplicas is above maxReplicas" $where $scaler) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $worker.keda.enabled (not $root.Values.autoscaling.prometheus.address) -}}
{{- $problems = append $problems (printf "%s.keda.enabled needs autoscaling.prometheus.address: the backlog is a metric of the exporter" $where) -}}
{{- end -}}
{{- if and $worker.keda.enabled (eq (int $worker.keda.minReplicas) 0) (hasPrefix "sentinel://" $root.Values.broker.url) -}}
{{- $problems = append $problems (printf "%s.keda.minReplicas is 0 and broker.url is sentinel://: KEDA sees the first message on redis:// and rediss:// only; set minReplicas to 1 or more" $where) -}}
{{- end -}}
{{- if gt (int $worker.batchConcurrency) (int $worker.concurrency) -}}
{{- $problems = append $problems (printf "%s.batchConcurrency is above its concurrency" $where) -}}
{{- end -}}
{{- if $worker.pinned -}}
{{- $requests := dig "requests" dict $worker.resources -}}{{- $limits := dig "limits" dict $worker.resources -}}
{{- if not (and (hasKey $limits "cpu") (hasKey $limits "memory")) -}}
{{- $problems = append $problems (printf "%s is pinned: give resources.limits.cpu and resources.limits.memory" $where) -}}
{{- else if not (regexMatch "^[1-9][0-9]*$" (toString $limits.cpu)) -}}
{{- $problems = append $problems (printf "%s is pinned: resources.limits.cpu is %v, and pinning takes whole cores, such as 2" $where $limits.cpu) -}}
{{- else if or (ne (toString $requests.cpu) (toString $limits.cpu)) (ne (toString $requests.memory) (toString $limits.memory)) -}}
{{- $problems = append $problems (printf "%s is pinned: resources.requests must equal resources.limits (cpu %v, memory %v), else the pod is not Guaranteed and gets no cores of its own" $where $limits.cpu $limits.memory) -}}
{{- end -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end }}

{{- define "citadel.allSettings" -}}
{{- $all := dict "settings" .Values.settings -}}
{{- range list "api" "beat" "exporter" "migrate" }}{{ $_ := set $all (printf "%s.settings" .) (index $.Values .).settings }}{{ end -}}
{{- range $name, $worker := include "citadel.workers" . | fromYaml }}{{ $_ := set $all (printf "workers.%s.settings" $name) $worker.settings }}{{ end -}}
{{- toYaml $all -}}
{{- end }}

{{- /* Settings that the chart must know, because other resources depend on them; and secrets. */ -}}
{{- define "citadel.settingProblems" -}}
{{- $where := index . 0 -}}{{- $problems := list -}}
{{- $keys := dict "CITADEL_WORKER__STOP_GRACE" "stopGrace" "CITADEL_WORKER__CONCURRENCY" "concurrency" "CITADEL_WORKER__BATCH_CONCURRENCY" "batchConcurrency" "CITADEL_API__GRACEFUL_TIMEOUT" "api.gracefulTimeout" "CITADEL_API__WORKERS" "api.processes" "CITADEL_BROKER_URL" "broker.url" "CITADEL_RESULT_URL" "broker.resultUrl" "CITADEL_CACHE_URL" "cache.url" "CITADEL_POSTGRES_DSN" "postgres.dsn" "CITADEL_POSTGRES__SEARCH_PATH" "postgres.searchPath" "CITADEL_POSTGRES__DIRECT_DSN" "postgres.directDsn" "CITADEL_POSTGRES__MIGRATION_DSN" "postgres.migrationDsn" "CITADEL_POSTGRES__GRANT_TO" "postgres.grantTo" "CITADEL_STORAGE__MAX_BYTES" "postgres.maxStoredBytes" "CITADEL_QDRANT__URL" "qdrant.url" "CITADEL_DEFAULT_MODEL" "defaultModel" "CITADEL_LOG__LEVEL" "log.level" "OTEL_EXPORTER_OTLP_ENDPOINT" "telemetry.otlp.endpoint" -}}
{{- $fixed := list "CITADEL_SECRETS_DIR" "CITADEL_WORKER__HEALTH_FILE" "CITADEL_BEAT__HEALTH_FILE" "CITADEL_API__HOST" "CITADEL_API__PORT" "CITADEL_EXPORTER__HOST" "CITADEL_EXPORTER__PORT" "CITADEL_TELEMETRY__METRICS_HOST" "CITADEL_TELEMETRY__METRICS_PORT" -}}
{{- range $name, $value := index . 1 -}}
{{- if hasKey $keys $name -}}
{{- $problems = append $problems (printf "%s has %s: set %s instead, because other resources depend on it" $where $name (index $keys $name)) -}}
{{- else if has $name $fixed -}}
{{- $problems = append $problems (printf "%s has %s, which probes, ports and policies of the chart depend on: remove it" $where $name) -}}
{{- else if hasPrefix "CITADEL_EMBEDDINGS__BACKENDS__" $name -}}
{{- $problems = append $problems (printf "%s has %s: set backends instead, so that every process and policy knows of it" $where $name) -}}
{{- else if hasPrefix "CITADEL_LLM__ENDPOINTS__" $name -}}
{{- $problems = append $problems (printf "%s has %s: set llm.endpoints instead, so that every process and policy knows of it" $where $name) -}}
{{- else if regexMatch "^OTEL_.*_HEADERS$" $name -}}
{{- $problems = append $problems (printf "%s has %s, which may hold a secret: send spans to a collector of yours, which adds headers" $where $name) -}}
{{- else if regexMatch "(_PASSWORD|_API_KEY|__KEYS|__PROXY)$|__HEADERS(__|$)" $name -}}
{{- $problems = append $problems (printf "%s has %s, a secret: put it into the Secret as %s" $where $name (lower $name)) -}}
{{- else if and (regexMatch "_PROXY$" $name) (contains "@" (toString $value)) -}}
{{- $problems = append $problems (printf "%s has %s with a password: put the proxy into the Secret, as the __proxy of each server" $where $name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $problems -}}
{{- end }}
