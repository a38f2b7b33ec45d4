{{- define "barkd.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "barkd.selector" -}}
app.kubernetes.io/name: barkd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "barkd.labels" -}}
{{ include "barkd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "barkd.claim" -}}
{{- with .Values.models.volume -}}
{{- if .existingClaim }}{{ .existingClaim }}{{ else if .create }}{{ include "barkd.name" $ }}-models{{ end -}}
{{- end -}}
{{- end -}}

{{- define "barkd.hub" -}}
{{- with .Values.models.hub.endpoint }}
- { name: HF_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- with .Values.models.hub }}
{{- if .existingSecret }}
- name: HF_TOKEN
  valueFrom: { secretKeyRef: { name: {{ .existingSecret }}, key: {{ .tokenKey }} } }
{{- end }}
{{- end }}
{{- end -}}

{{- define "barkd.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}
