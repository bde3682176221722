{{- /* Scale down slowly, one pod at a time: a pod hands back the tasks that it does not finish within its grace. */ -}}
{{- define "citadel.behavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 2, periodSeconds: 30}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownStabilization }}
  selectPolicy: Min
  policies:
    - {type: Pods, value: 1, periodSeconds: {{ .scaleDownPeriod }}}
{{- end }}

{{- /* Query of ready and unacknowledged messages; takes (list $ queue). `max`: during an update two exporters report them. */ -}}
{{- define "citadel.backlogQuery" -}}
{{- $own := tpl (index . 0).Values.autoscaling.prometheus.matchers (index . 0) -}}
{{- $matchers := printf "{queue=%q%s}" (index . 1) (ternary (printf ",%s" $own) "" (ne $own "")) -}}
sum(max by (lane) (citadel_queue_ready_messages{{ $matchers }})) + max(citadel_queue_unacked_messages{{ $matchers }})
{{- end }}

{{- /* The Redis lists of a queue, one for each priority step of the transport. */ -}}
{{- define "citadel.lists" -}}
{{- list . (printf "%s\x06\x163" .) (printf "%s\x06\x166" .) (printf "%s\x06\x169" .) | toJson -}}
{{- end }}

{{- define "citadel.redisTrigger" -}}
{{- $url := include "citadel.brokerUrl" . -}}
address: {{ regexReplaceAll "^[a-z]+://([^/@]*@)?([^/?]*).*$" $url "${2}" | splitList ":" | first }}:{{ include "citadel.ports" (dict "url" $url "port" 6379) | fromJsonArray | first }}
databaseIndex: {{ regexReplaceAll "^[a-z]+://[^/]*/?([0-9]*).*$" $url "${1}" | default "0" | quote }}
{{- if hasPrefix "rediss://" $url }}
enableTLS: "true"
{{- end }}
{{- with regexReplaceAll "^[a-z]+://(([^/@:]*)@)?.*$" $url "${2}" }}
username: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "citadel.hpa" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}{{- $hpa := index . 2 -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ include "citadel.name" (list $root $name) }}
  labels:
    {{- include "citadel.labels" (list $root $name) | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ include "citadel.name" (list $root $name) }}}
  minReplicas: {{ $hpa.minReplicas }}
  maxReplicas: {{ $hpa.maxReplicas }}
  metrics:
    {{- with $hpa.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- else }}
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ $hpa.cpuUtilization }}}}
    {{- end }}
  behavior:
    {{- include "citadel.behavior" $hpa | nindent 4 }}
{{- end }}
