{{/*
Settings as TOML, one dotted key a line. Takes (dict "value" MAP "path" ""). JSON's texts, numbers and lists are TOML's
too; helm's own toToml would write whole numbers as 200.0, which a count must not be.
*/}}
{{- define "consumer.toml" -}}
{{- range $key, $value := .value -}}
{{- $name := ternary $key (toJson $key) (regexMatch "^[A-Za-z0-9_-]+$" $key) -}}
{{- $path := ternary $name (printf "%s.%s" $.path $name) (empty $.path) -}}
{{- if kindIs "map" $value -}}
{{- include "consumer.toml" (dict "value" $value "path" $path) -}}
{{- else if not (kindIs "invalid" $value) }}
{{ $path }} = {{ toJson $value }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* consumer.toml of everything but the relay. */}}
{{- define "consumer.config" -}}
{{- include "consumer.toml" (dict "value" .Values.config "path" "") | trim -}}
{{- end -}}

{{/* consumer.toml of the relay: only the source it fills, and no store, so that it needs nobody else's secrets. */}}
{{- define "consumer.relayConfig" -}}
{{- $name := include "consumer.relaySource" . -}}
{{- $sources := dict $name (index .Values.config.sources $name) -}}
{{- $config := merge (dict "sources" $sources) (omit .Values.config "sources" "dead_letters") -}}
{{- with pick (.Values.config.dead_letters | default dict) "max_age" -}}
{{- $config = merge $config (dict "dead_letters" .) -}}
{{- end -}}
{{- include "consumer.toml" (dict "value" $config "path" "") | trim -}}
{{- end -}}

{{/* The source whose queue the relay fills; empty if the values do not say which. */}}
{{- define "consumer.relaySource" -}}
{{- $chosen := dig "relay" "source" "" .Values.config -}}
{{- $found := list -}}
{{- range $name, $source := .Values.config.sources -}}
{{- if eq (default "thrive" $source.provider) "sahha" -}}
{{- $found = append $found $name -}}
{{- end -}}
{{- end -}}
{{- if $chosen -}}
{{- if has $chosen $found -}}{{ $chosen }}{{- end -}}
{{- else if eq (len $found) 1 -}}
{{- first $found -}}
{{- end -}}
{{- end -}}

{{/* The secrets the relay needs, as {setting: reference} in JSON. */}}
{{- define "consumer.relaySecrets" -}}
{{- $name := include "consumer.relaySource" . -}}
{{- $verify := dig "relay" "verify" false .Values.config -}}
{{- $chosen := dict -}}
{{- range $setting, $reference := .Values.secrets -}}
{{- $own := hasPrefix (printf "sources.%s." $name) $setting -}}
{{- $proves := hasSuffix "signature.secrets" $setting -}}
{{- if or (and $own (not $proves)) (and $verify $proves (or $own (eq $setting "sahha.signature.secrets"))) -}}
{{- $_ := set $chosen $setting $reference -}}
{{- end -}}
{{- end -}}
{{- toJson $chosen -}}
{{- end -}}

{{/* Where the program finds each secret. Takes {setting: reference}. */}}
{{- define "consumer.secretEnv" -}}
{{- range $setting := keys . | sortAlpha }}
- name: CONSUMER_{{ $setting | replace "." "__" | upper }}_FILE
  value: /var/run/secrets/consumer/{{ $setting }}
{{- end }}
{{- end -}}

{{/* All secrets as files in one folder, without subPath: such mounts are never updated. Takes root and secrets. */}}
{{- define "consumer.secretVolume" -}}
{{- $root := .root -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $setting := keys .secrets | sortAlpha }}
      {{- $reference := index $.secrets $setting }}
      - secret:
          name: {{ $reference.secretName | default (include "consumer.externalSecretName" $root) | quote }}
          items:
            - key: {{ $reference.key | quote }}
              path: {{ $setting }}
      {{- end }}
{{- end -}}

{{/* Whether the database is PostgreSQL: "true" or empty. */}}
{{- define "consumer.postgres" -}}
{{- if hasKey .Values.secrets "database.url" -}}true{{- end -}}
{{- end -}}

{{/* What has to outlast a pod, in words; empty if all of it is kept elsewhere. */}}
{{- define "consumer.kept" -}}
{{- $kept := list -}}
{{- if not (include "consumer.postgres" .) -}}
{{- $kept = append $kept "the SQLite database" -}}
{{- end -}}
{{- if has (dig "dead_letters" "kind" "file" .Values.config) (list "file" "queue") -}}
{{- $kept = append $kept "dead letters" -}}
{{- end -}}
{{- range $name, $source := .Values.config.sources -}}
{{- if eq (toString $source.kind) "local" -}}
{{- $kept = append $kept (printf "the queue of source %s" $name) -}}
{{- end -}}
{{- end -}}
{{- join ", " $kept -}}
{{- end -}}

{{/* Whether the volume can be used on one node only: "true" or empty. */}}
{{- define "consumer.oneNode" -}}
{{- if and (include "consumer.kept" .) .Values.persistence.enabled (ne .Values.persistence.accessMode "ReadWriteMany") -}}true{{- end -}}
{{- end -}}

{{/* A duration of the settings in whole seconds. */}}
{{- define "consumer.seconds" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int -}}
{{- if hasSuffix "h" $text -}}{{ mul $number 3600 }}{{- else if hasSuffix "m" $text -}}{{ mul $number 60 }}{{- else -}}{{ $number }}{{- end -}}
{{- end -}}
