{{- define "consumer.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The names of parts are made by appending to this one, and 63 characters are all a name may have. */}}
{{- define "consumer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "consumer.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "consumer.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" NAME). */}}
{{- define "consumer.selectorLabels" -}}
app.kubernetes.io/name: {{ include "consumer.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Takes (dict "root" $ "component" NAME). */}}
{{- define "consumer.labels" -}}
{{ include "consumer.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "consumer.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "consumer.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "consumer.relayServiceAccountName" -}}
{{- $own := .Values.relay.serviceAccount -}}
{{- $own.name | default (ternary (printf "%s-relay" (include "consumer.fullname" .)) "default" $own.create) -}}
{{- end -}}

{{- define "consumer.claimName" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-data" (include "consumer.fullname" .)) -}}
{{- end -}}

{{- define "consumer.externalSecretName" -}}
{{- .Values.externalSecret.name | default (include "consumer.fullname" .) -}}
{{- end -}}

{{- define "consumer.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
