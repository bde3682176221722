{{- /*
A server for trials: Service and StatefulSet; takes a map: root, component, port, uid, values (image, resources,
storage), mount, args or command, probe, and optionally env, init (a command that runs first), initFiles (a volume that
it reads at /models), secret (the key of the Secret that is mounted as a file), run (a directory for sockets).
*/ -}}
{{- define "citadel.server" -}}
{{- $root := .root -}}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "citadel.name" (list $root .component) }}
  labels:
    {{- include "citadel.labels" (list $root .component) | nindent 4 }}
spec:
  selector:
    {{- include "citadel.selector" (list $root .component) | nindent 4 }}
  ports:
    - {name: {{ .component }}, port: {{ .port }}, targetPort: main}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ include "citadel.name" (list $root .component) }}
  labels:
    {{- include "citadel.labels" (list $root .component) | nindent 4 }}
spec:
  replicas: 1
  serviceName: {{ include "citadel.name" (list $root .component) }}
  selector:
    matchLabels:
      {{- include "citadel.selector" (list $root .component) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "citadel.labels" (list $root .component) | nindent 8 }}
    spec:
      {{- include "citadel.serverPod" . | nindent 6 }}
  {{- with .values.storage }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .className }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ .size }}}}
  {{- end }}
{{- end }}

{{- define "citadel.serverPod" -}}
{{- $root := .root -}}
serviceAccountName: {{ include "citadel.fullname" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 60
securityContext:
  {{- include "citadel.podSecurity" .uid | nindent 2 }}
{{- with $root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .init }}
initContainers:
  - name: prepare
    command:
      {{- toYaml . | nindent 6 }}
    {{- include "citadel.serverContainer" $ | nindent 4 }}
      {{- if $.initFiles }}
      - {name: files, mountPath: /models, readOnly: true}
      {{- end }}
{{- end }}
containers:
  - name: {{ .component }}
    {{- with .command }}
    command: {{ toJson . }}
    {{- end }}
    {{- with .args }}
    args: {{ toJson . }}
    {{- end }}
    {{- include "citadel.serverContainer" . | nindent 4 }}
    ports:
      - {name: main, containerPort: {{ .port }}}
    startupProbe: {{ merge (dict "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 60) .probe | toJson }}
    readinessProbe: {{ merge (dict "periodSeconds" 10 "timeoutSeconds" 5) .probe | toJson }}
    livenessProbe: {{ merge (dict "periodSeconds" 20 "timeoutSeconds" 10 "failureThreshold" 6) .probe | toJson }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
  {{- if .run }}
  - {name: run, emptyDir: {medium: Memory, sizeLimit: 1Mi}}
  {{- end }}
  {{- if not .values.storage }}
  - {name: data, emptyDir: {}}
  {{- end }}
  {{- with .initFiles }}
  - name: files
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .secret }}
  - name: secret
    secret:
      secretName: {{ include "citadel.secretName" $root }}
      defaultMode: 0440
      items: [{key: {{ . }}, path: password}]
  {{- end }}
{{- end }}

{{- define "citadel.serverContainer" -}}
image: {{ .values.image | quote }}
imagePullPolicy: IfNotPresent
securityContext:
  {{- include "citadel.containerSecurity" .root | nindent 2 }}
{{- with .env }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: {{ .mount }}}
  - {name: tmp, mountPath: /tmp}
  {{- with .run }}
  - {name: run, mountPath: {{ . }}}
  {{- end }}
  {{- if .secret }}
  - {name: secret, mountPath: /etc/citadel/secret, readOnly: true}
  {{- end }}
{{- end }}
