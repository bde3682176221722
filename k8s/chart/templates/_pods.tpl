{{- /* The pod of each Citadel process; takes (list $ process). */ -}}

{{- define "citadel.commands" -}}
api: [python, -m, citadel_orchestration.api]
beat: [python, -m, citadel_maintenance.beat]
exporter: [python, -m, citadel_monitoring.exporter]
migrate: [python, -m, citadel_orchestration.migrate]
embeddings: [python, -m, citadel_embeddings]
orchestration: [python, -m, citadel_orchestration]
monitoring: [python, -m, citadel_monitoring]
maintenance: [python, -m, citadel_maintenance]
{{- end }}

{{- define "citadel.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "citadel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "citadel.podTemplate" -}}
{{- $root := index . 0 -}}{{- $process := index . 1 -}}{{- $own := $process.values -}}{{- $pods := $root.Values.pods -}}
metadata:
  labels:
    {{- include "citadel.labels" (list $root $process.name) | nindent 4 }}
    {{- with mergeOverwrite (dict) $pods.labels $own.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with mergeOverwrite (dict) $pods.annotations $own.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "citadel.podAccount" (list $root $process) }}
  automountServiceAccountToken: false
  # Kubernetes' variables of services would look like settings: CITADEL_API_PORT=tcp://…
  enableServiceLinks: false
  securityContext:
    {{- include "citadel.podSecurity" 10001 | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "citadel.priorityClass" (list $root $process) }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $own.nodeSelector | default $pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations | default $pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if ne $process.kind "migrate" }}
  {{- include "citadel.placement" (list $root $process) | nindent 2 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "citadel.grace" $process }}
  {{- if eq $process.kind "migrate" }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: {{ $process.kind }}
      image: {{ include "citadel.image" (list $root $process.service) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: {{ index (include "citadel.commands" $root | fromYaml) (ternary $process.service $process.kind (eq $process.kind "worker")) | toJson }}
      securityContext:
        {{- include "citadel.containerSecurity" $root | nindent 8 }}
      env:
        {{- include "citadel.env" (list $root $process) | nindent 8 }}
      {{- with include "citadel.port" $process }}
      ports:
        - {{ . }}
      {{- end }}
      {{- include "citadel.probes" $process | nindent 6 }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      volumeMounts:
        - {name: secrets, mountPath: /etc/citadel/secrets, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        - {name: run, mountPath: /run/citadel}
        {{- if $root.Values.certificates }}
        - {name: certificates, mountPath: /etc/citadel/certificates, readOnly: true}
        {{- end }}
  volumes:
    - name: secrets
      secret:
        secretName: {{ include "citadel.secretName" $root }}
        # Optional: a server without a password needs no key.
        optional: true
        defaultMode: 0440
        items:
          {{- range include "citadel.secretKeys" (list $root $process) | fromYamlArray }}
          - {key: {{ . }}, path: {{ . }}}
          {{- end }}
    - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    - {name: run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
    {{- with $root.Values.certificates }}
    - name: certificates
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}

{{- /* A hook runs before the upgrade, so its account must already exist: the default account always does. */ -}}
{{- define "citadel.podAccount" -}}
{{- if eq (index . 1).kind "migrate" }}default{{ else }}{{ include "citadel.fullname" (index . 0) }}{{ end -}}
{{- end }}

{{- define "citadel.env" -}}
{{- $settings := include "citadel.settings" . | fromYaml -}}
{{- if hasKey $settings "OTEL_RESOURCE_ATTRIBUTES" }}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- end }}
{{- range $name, $value := $settings }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- define "citadel.port" -}}
{{- if eq .kind "api" }}{name: http, containerPort: 8080}
{{- else if eq .kind "exporter" }}{name: metrics, containerPort: 9808}
{{- else if ne .kind "migrate" }}{name: metrics, containerPort: 9464}
{{- end -}}
{{- end }}

{{- /* Seconds, more than the process itself waits after SIGTERM. */ -}}
{{- define "citadel.grace" -}}
{{- if eq .kind "worker" }}{{ add .values.stopGrace 15 }}
{{- else if eq .kind "api" }}{{ add .values.gracefulTimeout 15 }}
{{- else }}30{{ end -}}
{{- end }}

{{- /* Only the API's readiness depends on stores: a broker that is down is no reason for a restart. */ -}}
{{- define "citadel.probes" -}}
{{- $asks := printf "exec: {command: [python, -m, citadel_common.probe, %s]}" .kind -}}
{{- if eq .kind "api" }}{{ $asks = "httpGet: {path: /livez, port: http}" }}{{ end -}}
{{- if eq .kind "exporter" }}{{ $asks = "httpGet: {path: /livez, port: metrics}" }}{{ end -}}
{{- if ne .kind "migrate" -}}
startupProbe:
  {{ $asks }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 36
livenessProbe:
  {{ $asks }}
  periodSeconds: 15
  timeoutSeconds: 10
  failureThreshold: 3
{{- if eq .kind "api" }}
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
lifecycle:
  # Until load balancers have removed this pod.
  preStop: {exec: {command: [sleep, "5"]}}
{{- end }}
{{- end -}}
{{- end }}

{{- define "citadel.priorityClass" -}}
{{- $root := index . 0 -}}{{- $process := index . 1 -}}
{{- $class := $process.values.priorityClassName | default $root.Values.pods.priorityClassName -}}
{{- if and (not $class) $root.Values.priorityClasses.create -}}
{{- $class = printf "%s-%s-%s" $root.Release.Namespace (include "citadel.fullname" $root) $process.class -}}
{{- end -}}
{{- $class -}}
{{- end }}

{{- define "citadel.placement" -}}
{{- $root := index . 0 -}}{{- $process := index . 1 -}}
{{- with $process.values.affinity | default $root.Values.pods.affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{- else -}}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "citadel.selector" (list $root $process.name) | nindent 14 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "citadel.selector" (list $root $process.name) | nindent 8 }}
  {{- end }}
{{- end }}
