{{/*
What cannot work, refused in one line before anything reaches the cluster. What the program's own settings loader
refuses is left to it, but for what would only come out once pods crash. Every template begins with this, since helm
chooses which it renders first.
*/}}
{{- define "consumer.checks" -}}
{{- if not .Values.config.sources -}}
{{- fail "config.sources: missing, expected at least one source: see values.yaml" -}}
{{- end -}}
{{- include "consumer.checkSources" . -}}
{{- include "consumer.checkDeadLetters" . -}}
{{- include "consumer.checkSecrets" . -}}
{{- include "consumer.checkReplicas" . -}}
{{- include "consumer.checkGrace" . -}}
{{- if .Values.autoscaling.enabled -}}
{{- include "consumer.checkAutoscaling" . -}}
{{- end -}}
{{- if .Values.relay.enabled -}}
{{- include "consumer.checkRelay" . -}}
{{- end -}}
{{- if and .Values.replay.enabled (include "consumer.kept" .) (not .Values.persistence.enabled) -}}
{{- fail "replay.enabled: needs persistence.enabled, since a Job cannot see into another pod's emptyDir" -}}
{{- end -}}
{{- if and .Values.replay.enabled (include "consumer.oneNode" .) (eq .Values.persistence.accessMode "ReadWriteOncePod") -}}
{{- fail "replay.enabled: the worker has the volume to itself (persistence.accessMode ReadWriteOncePod), expected ReadWriteOnce" -}}
{{- end -}}
{{- if and .Values.externalSecret.enabled (include "consumer.postgres" .) (eq .Values.migration.mode "job") -}}
{{- fail "migration.mode: expected init or manual with externalSecret.enabled, since the Job runs before the secret is there" -}}
{{- end -}}
{{- end -}}

{{/* Each source has what proves its events and what opens its queue. */}}
{{- define "consumer.checkSources" -}}
{{- $secrets := .Values.secrets -}}
{{- range $name, $source := .Values.config.sources -}}
{{- $provider := default "thrive" $source.provider -}}
{{- $own := printf "sources.%s.signature.secrets" $name -}}
{{- if not (or (hasKey $secrets $own) (hasKey $secrets (printf "%s.signature.secrets" $provider))) -}}
{{- fail (printf "secrets: source %s carries events of %s, expected %s.signature.secrets or %s" $name $provider $provider $own) -}}
{{- end -}}
{{- $string := hasKey $secrets (printf "sources.%s.connection_string" $name) -}}
{{- if eq $source.kind "storage_queue" -}}
{{- if eq $string (hasKey $source "account_url") -}}
{{- fail (printf "config.sources.%s.account_url: expected either this or secrets sources.%s.connection_string" $name $name) -}}
{{- end -}}
{{- else if eq $source.kind "event_hubs" -}}
{{- if not (or $string $source.namespace) -}}
{{- fail (printf "config.sources.%s.namespace: expected this or secrets sources.%s.connection_string" $name $name) -}}
{{- end -}}
{{- if eq (hasKey $secrets (printf "sources.%s.checkpoints.connection_string" $name)) (hasKey ($source.checkpoints | default dict) "account_url") -}}
{{- fail (printf "config.sources.%s.checkpoints.account_url: expected either this or secrets sources.%s.checkpoints.connection_string" $name $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A blob store has one way in. */}}
{{- define "consumer.checkDeadLetters" -}}
{{- $letters := .Values.config.dead_letters | default dict -}}
{{- if and (eq (default "file" $letters.kind) "blob") (eq (hasKey $letters "account_url") (hasKey .Values.secrets "dead_letters.connection_string")) -}}
{{- fail "config.dead_letters.account_url: expected either this or secrets dead_letters.connection_string" -}}
{{- end -}}
{{- end -}}

{{/* Each reference leads to a secret, and is of a source there is. */}}
{{- define "consumer.checkSecrets" -}}
{{- $values := .Values -}}
{{- range $setting, $reference := $values.secrets -}}
{{- $parts := splitList "." $setting -}}
{{- if and (eq (first $parts) "sources") (not (hasKey $values.config.sources (index $parts 1))) -}}
{{- fail (printf "secrets.%s: there is no source %s in config.sources" $setting (index $parts 1)) -}}
{{- end -}}
{{- if not (or $reference.secretName $values.externalSecret.enabled) -}}
{{- fail (printf "secrets.%s.secretName: missing, expected the name of a Secret (or externalSecret.enabled)" $setting) -}}
{{- end -}}
{{- $made := $values.externalSecret.enabled | ternary (include "consumer.externalSecretName" $) "" -}}
{{- if and $made (eq $made ($reference.secretName | default $made)) (not (hasKey $values.externalSecret.data $reference.key)) -}}
{{- fail (printf "externalSecret.data.%s: missing, secrets.%s refers to it" $reference.key $setting) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What is kept on a volume outlasts the pod, and is never in the hands of more workers than it can bear. */}}
{{- define "consumer.checkReplicas" -}}
{{- $kept := include "consumer.kept" . -}}
{{- $many := or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) -}}
{{- $which := ternary "autoscaling.enabled" "replicas" .Values.autoscaling.enabled -}}
{{- if and $many (not (include "consumer.postgres" .)) -}}
{{- fail (printf "%s: expected one replica with SQLite: several workers need PostgreSQL, secrets database.url" $which) -}}
{{- end -}}
{{- if and $kept (not .Values.persistence.enabled) (not .Values.persistence.ephemeral) -}}
{{- fail (printf "persistence.enabled: expected true, since %s would be lost with the pod; persistence.ephemeral=true accepts that" $kept) -}}
{{- end -}}
{{- if and $many (include "consumer.oneNode" .) -}}
{{- fail (printf "%s: one volume of persistence.accessMode %s cannot hold %s of several replicas: ReadWriteMany, or config.dead_letters.kind s3 or blob" $which .Values.persistence.accessMode $kept) -}}
{{- end -}}
{{- end -}}

{{/*
A stop takes as long as config.drain_timeout, and 10 s more for a handler that ignores its cancellation; 5 s are for
closing connections, and the relay's pods first wait until nobody sends them requests any more.
*/}}
{{- define "consumer.checkGrace" -}}
{{- $drain := include "consumer.seconds" (dig "drain_timeout" "25s" .Values.config) | int -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- if lt $grace (add $drain 15 | int) -}}
{{- fail (printf "terminationGracePeriodSeconds: expected %d or more, 15 s beyond config.drain_timeout" (add $drain 15)) -}}
{{- end -}}
{{- $first := int .Values.relay.drainDelaySeconds -}}
{{- if and .Values.relay.enabled (lt $grace (add $drain 5 $first | int)) -}}
{{- fail (printf "terminationGracePeriodSeconds: expected %d or more, 5 s beyond config.drain_timeout and relay.drainDelaySeconds" (add $drain 5 $first)) -}}
{{- end -}}
{{- end -}}

{{- define "consumer.checkAutoscaling" -}}
{{- $values := .Values -}}
{{- $scaling := $values.autoscaling -}}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) -}}
{{- fail "autoscaling.minReplicas: expected no more than autoscaling.maxReplicas" -}}
{{- end -}}
{{- $partitions := 0 -}}
{{- $others := false -}}
{{- range $name, $source := $values.config.sources -}}
{{- $held := $source.max_in_flight | default $values.config.max_in_flight | default 200 | int -}}
{{- if le (int $scaling.targetPerReplica) $held -}}
{{- fail (printf "autoscaling.targetPerReplica: expected more than the %d deliveries that one replica holds of source %s (max_in_flight): they count as backlog" $held $name) -}}
{{- end -}}
{{- if eq $source.kind "event_hubs" -}}
{{- include "consumer.checkHubScaling" (dict "values" $values "name" $name "source" $source) -}}
{{- $partitions = max $partitions (index $scaling.partitions $name) -}}
{{- else -}}
{{- $others = true -}}
{{- if and (not (has $source.kind (list "sqs" "storage_queue"))) (not $scaling.extraTriggers) -}}
{{- fail (printf "autoscaling.enabled: nothing tells the backlog of source %s, which is %s" $name $source.kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (not $others) (gt (int $scaling.maxReplicas) (int $partitions)) -}}
{{- fail (printf "autoscaling.maxReplicas: expected %d or less, since replicas beyond the number of partitions are idle" (int $partitions)) -}}
{{- end -}}
{{- end -}}

{{/*
KEDA looks for checkpoints under the names it is given, of which it puts only the consumer group in small letters; they
are written under small letters throughout. Azure itself does not mind the case.
*/}}
{{- define "consumer.checkHubScaling" -}}
{{- $source := .source -}}
{{- $at := printf "config.sources.%s" .name -}}
{{- range $key := list "namespace" "event_hub" -}}
{{- $value := index $source $key | default "" -}}
{{- if ne $value (lower $value) -}}
{{- fail (printf "%s.%s: expected small letters with autoscaling.enabled, or KEDA does not find the checkpoints" $at $key) -}}
{{- end -}}
{{- end -}}
{{- if not $source.event_hub -}}
{{- fail (printf "%s.event_hub: missing, KEDA needs it" $at) -}}
{{- end -}}
{{- $string := hasKey .values.secrets (printf "sources.%s.connection_string" .name) -}}
{{- $store := hasKey .values.secrets (printf "sources.%s.checkpoints.connection_string" .name) -}}
{{- if and $string (not $store) -}}
{{- fail (printf "autoscaling.enabled: KEDA reads the checkpoints of source %s only with a connection string if the hub has one: secrets sources.%s.checkpoints.connection_string" .name .name) -}}
{{- end -}}
{{- if not (index .values.autoscaling.partitions .name) -}}
{{- fail (printf "autoscaling.partitions.%s: missing, expected the hub's number of partitions" .name) -}}
{{- end -}}
{{- if lt (int .values.autoscaling.minReplicas) 1 -}}
{{- fail (printf "autoscaling.minReplicas: expected 1 or more, since parked events of source %s wait in the database, where KEDA does not see them" .name) -}}
{{- end -}}
{{- end -}}

{{- define "consumer.checkRelay" -}}
{{- $name := include "consumer.relaySource" . -}}
{{- if not $name -}}
{{- fail "relay.enabled: config.relay.source does not name a source with provider sahha, or there is not exactly one" -}}
{{- end -}}
{{- if eq (index .Values.config.sources $name "kind") "local" -}}
{{- fail (printf "relay.enabled: source %s is local, and the relay's pod cannot reach its file" $name) -}}
{{- end -}}
{{- if and (dig "relay" "verify" false .Values.config) (not (or (hasKey .Values.secrets "sahha.signature.secrets") (hasKey .Values.secrets (printf "sources.%s.signature.secrets" $name)))) -}}
{{- fail "config.relay.verify: needs secrets sahha.signature.secrets" -}}
{{- end -}}
{{- $ingress := .Values.relay.ingress -}}
{{- if $ingress.enabled -}}
{{- if not $ingress.host -}}{{- fail "relay.ingress.host: missing, expected the host that webhooks are sent to" -}}{{- end -}}
{{- if not $ingress.tlsSecretName -}}{{- fail "relay.ingress.tlsSecretName: missing, webhooks carry health data and come over HTTPS only" -}}{{- end -}}
{{- end -}}
{{- end -}}
