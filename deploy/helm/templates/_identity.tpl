{{/* Annotations by which a cloud takes a service account for one of its own. Takes a serviceAccount of the values. */}}
{{- define "consumer.identity" -}}
{{- $annotations := deepCopy .annotations -}}
{{- with .awsRoleArn -}}
{{- $_ := set $annotations "eks.amazonaws.com/role-arn" . -}}
{{- end -}}
{{- with .azureClientId -}}
{{- $_ := set $annotations "azure.workload.identity/client-id" . -}}
{{- end -}}
{{- with .azureTenantId -}}
{{- $_ := set $annotations "azure.workload.identity/tenant-id" . -}}
{{- end -}}
{{- if $annotations -}}
annotations:
  {{- toYaml $annotations | nindent 2 }}
{{- end -}}
{{- end -}}
