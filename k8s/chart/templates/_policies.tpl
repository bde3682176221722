{{- define "citadel.scrapers" -}}
{{- with .Values.networkPolicies.scrapers -}}
{{- toYaml . -}}
{{- else -}}
- namespaceSelector: {}
{{- end -}}
{{- end }}

{{- define "citadel.kedaUsed" -}}
{{- range include "citadel.workers" . | fromYaml }}{{ if .keda.enabled }}true{{ end }}{{ end -}}
{{- end }}
