{{- /* Names, labels and images. Templates for one process take (list $ name). */ -}}

{{- define "citadel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "citadel.name" -}}
{{- printf "%s-%s" (include "citadel.fullname" (index . 0)) (index . 1) -}}
{{- end }}

{{- /* Labels of selectors. They must never change, because the selector of a Deployment cannot. */ -}}
{{- define "citadel.selector" -}}
app.kubernetes.io/name: citadel
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "citadel.labels" -}}
{{ include "citadel.selector" . }}
{{- with index . 0 }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: citadel
{{- end }}
{{- end }}

{{- define "citadel.image" -}}
{{- $image := (index . 0).Values.image -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ $image.prefix }}{{ index . 1 }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- define "citadel.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "citadel.fullname" .) -}}
{{- end }}
