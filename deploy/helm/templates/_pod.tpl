{{/* What every pod of this chart has in common. Takes root and serviceAccountName. */}}
{{- define "consumer.podBasics" -}}
{{- $values := .root.Values -}}
{{- with .serviceAccountName }}
serviceAccountName: {{ . | quote }}
{{- end }}
# Nothing here speaks to the cluster; cloud identities bring a token of their own.
automountServiceAccountToken: false
# Variables named CONSUMER_..., made for a Service of such a name, could be taken for settings.
enableServiceLinks: false
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What every container has in common. Takes root. */}}
{{- define "consumer.containerBasics" -}}
{{- $values := .root.Values -}}
image: {{ include "consumer.image" .root | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- with $values.image.command }}
command:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $values.securityContext | nindent 2 }}
{{- end -}}

{{/* Environment of whatever opens the database and the dead letters. Takes root and secrets. */}}
{{- define "consumer.workEnv" -}}
{{- $values := .root.Values -}}
- name: CONSUMER_CONFIG
  value: /etc/consumer/consumer.toml
- name: CONSUMER_DATA_DIR
  value: /data
{{- if not (include "consumer.postgres" .root) }}
# VACUUM, after a member was forgotten, needs room for the database once more: /tmp has it not.
- name: SQLITE_TMPDIR
  value: /data
{{- end }}
{{- include "consumer.secretEnv" .secrets }}
{{- end -}}

{{/* Mounts that go with consumer.workVolumes. Takes root. */}}
{{- define "consumer.workMounts" -}}
- name: config
  mountPath: /etc/consumer
  readOnly: true
{{- if .root.Values.secrets }}
- name: secrets
  mountPath: /var/run/secrets/consumer
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- if include "consumer.kept" .root }}
- name: data
  mountPath: /data
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes root, secrets and config (a ConfigMap's name). */}}
{{- define "consumer.workVolumes" -}}
{{- $values := .root.Values -}}
- name: config
  configMap:
    name: {{ .config }}
{{- if .secrets }}
{{ include "consumer.secretVolume" (dict "root" .root "secrets" .secrets) }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: {{ $values.tmpSize }}
{{- if include "consumer.kept" .root }}
- name: data
  {{- if $values.persistence.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "consumer.claimName" .root | quote }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ $values.persistence.size }}
  {{- end }}
{{- end }}
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Replicas apart from each other, as far as there are nodes and zones. Takes root, component and topologySpread. */}}
{{- define "consumer.spread" -}}
{{- $selector := include "consumer.selectorLabels" (dict "root" .root "component" .component) -}}
{{- $spread := .root.Values.topologySpread -}}
{{- if $spread.enabled }}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: {{ $spread.maxSkew }}
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $spread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}
