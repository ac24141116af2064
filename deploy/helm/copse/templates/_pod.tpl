{{/*
The pod, for the server and for one command that needs its volumes. .args is what copse is told, .serves whether
that is "serve"; the rest is the chart's root. Volumes are at its end: a Job names its claims there.
*/}}
{{- define "copse.pod" -}}
serviceAccountName: {{ include "copse.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false # a service named copse-x would be a setting that copse does not know: COPSE_X_PORT
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: copse
    image: {{ include "copse.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: {{ toJson .args }}
    env:
      {{- if .serves }}
      - name: COPSE_ROOT_ACCESS_KEY_ID
        valueFrom:
          secretKeyRef:
            name: {{ required "rootKey.existingSecret: name a secret with id and secret of the key that may do everything" .Values.rootKey.existingSecret }}
            key: id
      - name: COPSE_ROOT_SECRET_ACCESS_KEY
        valueFrom:
          secretKeyRef:
            name: {{ .Values.rootKey.existingSecret }}
            key: secret
      {{- end }}
      {{- /* The environment wins over the file: what the chart sets could be undone by it, unseen. */}}
      {{- range .Values.extraEnv }}
      {{- if hasPrefix "COPSE_" .name }}
      {{- fail (printf "extraEnv: %s is set by config or by the chart itself, see values.yaml" .name) }}
      {{- end }}
      {{- end }}
      {{- with .Values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- if .serves }}
    ports:
      - {name: api, containerPort: 8420}
      - {name: ops, containerPort: 8421}
      {{- if .Values.extAuthz.enabled }}
      - {name: ext-authz, containerPort: 8422}
      {{- end }}
    # A new version may first back up and rewrite the data directory.
    startupProbe:
      httpGet: {path: /healthz, port: ops}
      periodSeconds: 2
      failureThreshold: 300
    readinessProbe:
      httpGet: {path: /readyz, port: ops}
      periodSeconds: 2
      timeoutSeconds: 3
      failureThreshold: 1
    livenessProbe:
      httpGet: {path: /healthz, port: ops}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    {{- end }}
    resources: {{- toYaml .Values.resources | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    volumeMounts:
      - {name: data, mountPath: /data}
      - {name: config, mountPath: /etc/copse/config, readOnly: true}
      - {name: master, mountPath: /etc/copse/master, readOnly: true}
      {{- if .Values.tls.existingSecret }}
      - {name: tls, mountPath: /etc/copse/tls, readOnly: true}
      {{- end }}
      {{- if .Values.tls.clientCASecret }}
      - {name: client-ca, mountPath: /etc/copse/client-ca, readOnly: true}
      {{- end }}
      {{- if .Values.routes }}
      - {name: routes, mountPath: /etc/copse/routes, readOnly: true}
      {{- end }}
      {{- if .Values.backup.enabled }}
      - {name: backups, mountPath: /backups}
      {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "copse.name" . }}}
  - name: master
    secret:
      secretName: {{ required "masterKey.existingSecret: name a secret with master.key" .Values.masterKey.existingSecret }}
      defaultMode: 0400
      items: [{key: master.key, path: master.key}]
  {{- if .Values.tls.existingSecret }}
  - name: tls
    secret: {secretName: {{ .Values.tls.existingSecret }}, defaultMode: 0400}
  {{- end }}
  {{- with .Values.tls.clientCASecret }}
  - name: client-ca
    secret: {secretName: {{ . }}, defaultMode: 0400}
  {{- end }}
  {{- if .Values.routes }}
  - name: routes
    configMap: {name: {{ include "copse.name" . }}-routes}
  {{- end }}
{{- end -}}
