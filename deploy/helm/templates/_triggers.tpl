{{/* KEDA's triggers, by kind of source. Each takes root, name and source. */}}
{{- define "consumer.trigger.sqs" -}}
{{- $url := .source.queue_url -}}
{{- $region := .source.region | default (regexFind "//sqs\\.[a-z0-9-]+\\." $url | trimPrefix "//sqs." | trimSuffix ".") -}}
{{- if not $region -}}
{{- fail (printf "config.sources.%s.region: missing, KEDA needs it where the queue's URL does not tell it" .name) -}}
{{- end -}}
- type: aws-sqs-queue
  metadata:
    queueURL: {{ $url | quote }}
    awsRegion: {{ $region | quote }}
    queueLength: {{ .root.Values.autoscaling.targetPerReplica | quote }}
    # Without the messages in hand, the replica with the last ones would be scaled away.
    scaleOnInFlight: "true"
    {{- with .source.endpoint_url }}
    awsEndpoint: {{ . | quote }}
    {{- end }}
{{- end -}}

{{- define "consumer.trigger.storage_queue" -}}
- type: azure-queue
  metadata:
    queueName: {{ .source.queue | quote }}
    queueLength: {{ .root.Values.autoscaling.targetPerReplica | quote }}
    queueLengthStrategy: all
    {{- with .source.account_url }}
    accountName: {{ include "consumer.account" . | quote }}
    {{- end }}
    {{- with include "consumer.cloud" (.source.account_url | default "") }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "consumer.trigger.event_hubs" -}}
{{- $account := dig "checkpoints" "account_url" "" .source -}}
{{- $namespace := .source.namespace | default "" -}}
- type: azure-eventhub
  metadata:
    eventHubName: {{ .source.event_hub | quote }}
    consumerGroup: {{ .source.consumer_group | default "$Default" | quote }}
    unprocessedEventThreshold: {{ .root.Values.autoscaling.targetPerReplica | quote }}
    checkpointStrategy: blobMetadata
    blobContainer: {{ .source.checkpoints.container | quote }}
    {{- with $namespace }}
    eventHubNamespace: {{ splitList "." . | first | quote }}
    {{- end }}
    {{- with $account }}
    storageAccountName: {{ include "consumer.account" . | quote }}
    {{- end }}
    {{- with include "consumer.cloud" ($namespace | default $account) }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The storage account in a URL. */}}
{{- define "consumer.account" -}}
{{- regexFind "//[^./:]+" . | trimPrefix "//" -}}
{{- end -}}

{{/* Azure's other clouds, told by their host names. */}}
{{- define "consumer.cloud" -}}
{{- if contains ".chinacloudapi.cn" . -}}
cloud: AzureChinaCloud
{{- else if contains ".usgovcloudapi.net" . -}}
cloud: AzureUSGovernmentCloud
{{- end -}}
{{- end -}}

{{/* How KEDA gets at a queue: as the worker does, or as the identity named in the values. */}}
{{- define "consumer.triggerAuthentication" -}}
{{- $values := .root.Values -}}
{{- $authentication := $values.autoscaling.authentication -}}
{{- $targets := list -}}
{{- range $parameter, $setting := dict "connection" "connection_string" "storageConnection" "checkpoints.connection_string" -}}
{{- $reference := index $values.secrets (printf "sources.%s.%s" $.name $setting) -}}
{{- if $reference -}}
{{- $name := $reference.secretName | default (include "consumer.externalSecretName" $.root) -}}
{{- $targets = append $targets (dict "parameter" $parameter "name" $name "key" $reference.key) -}}
{{- end -}}
{{- end -}}
{{- if eq .source.kind "sqs" -}}
podIdentity:
  provider: aws
  {{- with $authentication.awsRoleArn }}
  roleArn: {{ . | quote }}
  {{- end }}
  {{- if $authentication.awsAsWorker }}
  identityOwner: workload
  {{- end }}
{{- else -}}
{{- if not (hasKey $values.secrets (printf "sources.%s.connection_string" .name)) -}}
podIdentity:
  provider: azure-workload
  {{- with $authentication.azureClientId }}
  identityId: {{ . | quote }}
  {{- end }}
{{ end -}}
{{- with $targets -}}
secretTargetRef:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
{{- end -}}
