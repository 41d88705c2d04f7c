{{- define "lastkey.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "lastkey.selector" -}}
app.kubernetes.io/name: lastkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lastkey.labels" -}}
{{ include "lastkey.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "lastkey.imageOf" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "lastkey.image" -}}
{{- include "lastkey.imageOf" .Values.image -}}
{{- end -}}

{{- define "lastkey.claim" -}}
{{- .Values.storage.existingClaim | default (printf "%s-data" (include "lastkey.name" .)) -}}
{{- end -}}

{{/* What both pods have in common: no rights, no token, one volume. */}}
{{- define "lastkey.pod" -}}
serviceAccountName: {{ include "lastkey.name" . }}
automountServiceAccountToken: {{ not (empty .Values.cluster) }}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "lastkey.container" -}}
image: {{ include "lastkey.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{/* What every agent on a node is: root, on every node, with the identity of that node. */}}
{{- define "lastkey.agent" -}}
enableServiceLinks: false
securityContext:
  # The folders of kubelet, the sockets in them and the identity of the node are root's.
  runAsUser: 0
  runAsGroup: 0
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agents.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agents.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
priorityClassName: {{ .Values.agents.priorityClassName | quote }}
{{- end -}}

{{/* How an agent reaches the server, and who vouches for it. */}}
{{- define "lastkey.agentEnv" -}}
- name: LASTKEY_ADDR
  value: {{ required "agents.address: where agents reach the server, such as https://lastkey.lastkey.svc:8400" .Values.agents.address | quote }}
- name: LASTKEY_IDENTITY
  value: /var/lib/lastkey-node/node.pem
{{- if .Values.agents.ca }}
- name: LASTKEY_CA
  value: /etc/lastkey/ca.pem
{{- else }}
- name: LASTKEY_CA_FINGERPRINT
  value: {{ required "agents.ca or agents.caFingerprint: who vouches for the server" .Values.agents.caFingerprint | quote }}
{{- end }}
{{- end -}}

{{- define "lastkey.agentMounts" -}}
# The certificate of the node, which `lastkey node join` wrote; it is read again when it changes.
# Beside it the agent writes what it knows of the server's state.
- name: identity
  mountPath: /var/lib/lastkey-node
{{- if .Values.agents.ca }}
- name: config
  mountPath: /etc/lastkey
  readOnly: true
{{- end }}
{{- end -}}

{{- define "lastkey.agentVolumes" -}}
- name: identity
  hostPath:
    path: {{ .Values.agents.identity | quote }}
    type: Directory
{{- end -}}

{{/* Port of an address, for policies. */}}
{{- define "lastkey.portOf" -}}
{{- regexFind ":[0-9]+$" (urlParse .).host | trimPrefix ":" | default "443" -}}
{{- end -}}

{{/* That of the server. */}}
{{- define "lastkey.agentPort" -}}
{{- include "lastkey.portOf" .Values.agents.address -}}
{{- end -}}

{{/* A container of kubernetes-csi beside the driver: root, because the socket is root's, and nothing else. */}}
{{- define "lastkey.sidecar" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .Values.volumes.sidecars.resources | nindent 2 }}
{{- end -}}
