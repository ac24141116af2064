{{- define "copse.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "copse.selector" -}}
app.kubernetes.io/name: copse
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The pods that answer, and not one that does maintenance. */}}
{{- define "copse.server" -}}
{{ include "copse.selector" . }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "copse.labels" -}}
{{ include "copse.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "copse.image" -}}
{{- $repository := required "image.repository: name an image that was built from the Dockerfile" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* What the chart sets is not to be set twice: the server would listen where no port, volume or probe is. */}}
{{- define "copse.config" -}}
{{- $own := dict "data" (printf "/data/%s" .Values.persistence.directory) "listen" ":8420" "ops-listen" ":8421" "master-key-file" "/etc/copse/master/master.key" -}}
{{- if and .Values.tls.existingSecret .Values.tls.terminatedByProxy -}}
{{- fail "tls: either existingSecret or terminatedByProxy, not both" -}}
{{- else if .Values.tls.existingSecret -}}
{{- $own = merge $own (dict "tls-cert" "/etc/copse/tls/tls.crt" "tls-key" "/etc/copse/tls/tls.key") -}}
{{- else if .Values.tls.terminatedByProxy -}}
{{- $own = merge $own (dict "behind-tls-proxy" true) -}}
{{- else -}}
{{- fail "tls: name existingSecret, a secret with tls.crt and tls.key, or say with terminatedByProxy that something in front of the pod speaks TLS" -}}
{{- end -}}
{{- if .Values.tls.clientCASecret -}}
{{- if not .Values.tls.existingSecret -}}
{{- fail "tls.clientCASecret needs tls.existingSecret: who terminates TLS asks for clients' certificates" -}}
{{- end -}}
{{- $own = merge $own (dict "tls-client-ca" "/etc/copse/client-ca/ca.crt") -}}
{{- end -}}
{{- if .Values.routes -}}
{{- $own = merge $own (dict "routes-file" "/etc/copse/routes/routes.yaml") -}}
{{- end -}}
{{- if .Values.extAuthz.enabled -}}
{{- $own = merge $own (dict "ext-authz-listen" ":8422") -}}
{{- end -}}
{{- if .Values.backup.enabled -}}
{{- $own = merge $own (dict "backup-dir" "/backups" "backup-every" .Values.backup.every "backup-keep" .Values.backup.keep) -}}
{{- end -}}
{{- range $name := list "data" "listen" "ops-listen" "ext-authz-listen" "master-key-file" "tls-cert" "tls-key" "tls-client-ca" "behind-tls-proxy" "routes-file" "backup-dir" "backup-every" "backup-keep" "root-access-key-id" "root-secret-access-key" -}}
{{- if hasKey $.Values.config $name -}}
{{- fail (printf "config.%s: the chart sets this itself, see values.yaml" $name) -}}
{{- end -}}
{{- end -}}
{{ merge $own .Values.config (dict "log-format" "json") | toYaml }}
{{- end -}}
