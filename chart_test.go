package copse_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// chartTool is a program of the pinned Python packages that scripts/deps installs: helm itself, and a checker
// that has the schemas of Kubernetes' own objects.
func chartTool(t *testing.T, program string, in string, args ...string) (out string, err error) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(cache, "copse-test", "helm", "bin", program), args...)
	cmd.Stdin = strings.NewReader(in)
	var text, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, &complaints, &text)
	}
	return text.String(), nil
}

// What has to be said in any case, and what can be: values as on helm's command line.
var (
	leastValues = []string{"image.repository=registry.example.com/copse", "masterKey.existingSecret=master", "rootKey.existingSecret=root"}
	tlsValues   = []string{"tls.existingSecret=certificate"}
	allValues   = []string{
		"tls.existingSecret=certificate", "tls.clientCASecret=clients", "extAuthz.enabled=true", "metrics.serviceMonitor=true", "metrics.prometheusRule=true",
		"image.digest=sha256:" + strings.Repeat("ab", 32), "imagePullSecrets[0].name=pull", "routes.routes[0].path=/", "config.default-plan=avp", "fullnameOverride=policies",
		"networkPolicy.apiFrom[0].podSelector.matchLabels.app=gateway", "networkPolicy.opsFrom[0].namespaceSelector.matchLabels.team=monitoring",
		"networkPolicy.egress[0].ports[0].port=53", "networkPolicy.egress[0].ports[0].protocol=UDP", "networkPolicy.egress[1].to[0].ipBlock.cidr=192.0.2.0/24",
		"metrics.labels.release=prometheus",
		"extraEnv[0].name=HTTPS_PROXY", "extraEnv[0].value=http://proxy:3128", "podAnnotations.a=b", "podLabels.c=d", "serviceAccountAnnotations.e=f", "service.annotations.g=h",
		"nodeSelector.disk=fast", "tolerations[0].key=dedicated", "tolerations[0].operator=Exists", "priorityClassName=high", "persistence.storageClass=fast", "backup.storageClass=slow",
		"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key=zone",
		"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
		"maintenance={check,--data=/data/copse}",
	}
)

func renderChart(t *testing.T, values ...[]string) (string, error) {
	t.Helper()
	args := []string{"template", "rel", "deploy/helm/copse", "--namespace", "authz"}
	for _, value := range slices.Concat(values...) {
		args = append(args, "--set", value)
	}
	return chartTool(t, "helm", "", args...)
}

// manifest is of a rendered object what the tests look at.
type manifest struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Data       map[string]string
	Spec       struct {
		Selector yaml.Node
		Ports    []struct {
			TargetPort string `yaml:"targetPort"`
		}
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
		VolumeClaimTemplates []volume `yaml:"volumeClaimTemplates"`
	}
}

type pod struct {
	TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
	AutomountServiceAccountToken  *bool `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool `yaml:"enableServiceLinks"`
	SecurityContext               struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		RunAsUser      uint32                `yaml:"runAsUser"`
		RunAsGroup     uint32                `yaml:"runAsGroup"`
		FSGroup        uint32                `yaml:"fsGroup"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []container
	Volumes    []volume
}

type container struct {
	Args []string
	Env  []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	StartupProbe    probe `yaml:"startupProbe"`
	ReadinessProbe  probe `yaml:"readinessProbe"`
	LivenessProbe   probe `yaml:"livenessProbe"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

type volume struct {
	Name      string
	Metadata  struct{ Name string }
	ConfigMap struct{ Name string } `yaml:"configMap"`
	Secret    struct {
		SecretName  string `yaml:"secretName"`
		DefaultMode int    `yaml:"defaultMode"`
	}
}

func manifests(t *testing.T, text string) map[string]manifest {
	t.Helper()
	all := map[string]manifest{}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var m manifest
		switch err := d.Decode(&m); {
		case err == io.EOF:
			return all
		case err != nil:
			t.Fatal(err)
		case m.Kind != "":
			all[m.Kind+" "+m.Metadata.Name] = m
		}
	}
}

// Helm finds nothing to complain about, and what it renders is what Kubernetes takes: every field is one, of
// the oldest version that the chart is for and of the newest that the checker knows.
func TestChartRenders(t *testing.T) {
	for name, values := range map[string][]string{"least": tlsValues, "behind a proxy": {"tls.terminatedByProxy=true", "backup.enabled=false"}, "all": allValues} {
		args := []string{"lint", "--strict", "deploy/helm/copse"}
		for _, value := range append(slices.Clone(leastValues), values...) {
			args = append(args, "--set", value)
		}
		if _, err := chartTool(t, "helm", "", args...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		text, err := renderChart(t, leastValues, values)
		if err != nil {
			t.Fatal(name, err)
		}
		var ours []string // the Prometheus operator's kinds are not Kubernetes' own
		for _, object := range strings.Split(text, "\n---\n") {
			if !strings.Contains(object, "monitoring.coreos.com") {
				ours = append(ours, object)
			}
		}
		if objects := len(ours); objects < 6 {
			t.Errorf("%s: only %d objects", name, objects)
		}
		file := filepath.Join(t.TempDir(), "all.yaml")
		if err := os.WriteFile(file, []byte(strings.Join(ours, "\n---\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, version := range []string{"1.29", "1.37"} {
			if _, err := chartTool(t, "kubernetes-validate", "", "--strict", "--quiet", "-k", version, file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		checkManifests(t, name, manifests(t, text))
	}
}

// checkManifests holds what no schema knows: that names, ports, labels and mounts fit together, and how little
// the pods may do.
func checkManifests(t *testing.T, name string, all map[string]manifest) {
	t.Helper()
	server := all["StatefulSet rel"]
	if name == "all" {
		server = all["StatefulSet policies"]
		for _, want := range []string{"ServiceMonitor policies", "PrometheusRule policies", "ConfigMap policies-routes", "NetworkPolicy policies"} {
			if _, ok := all[want]; !ok {
				t.Errorf("%s: there is no %s", name, want)
			}
		}
	}
	ports, jobs := map[string]bool{}, 0
	for _, p := range server.Spec.Template.Spec.Containers[0].Ports {
		ports[p.Name] = true
	}
	for which, m := range all {
		switch m.Kind {
		case "Service":
			for _, p := range m.Spec.Ports {
				if !ports[p.TargetPort] {
					t.Errorf("%s: %s: there is no port %s", name, which, p.TargetPort)
				}
			}
			var selector map[string]string
			if err := m.Spec.Selector.Decode(&selector); err != nil || !subset(selector, server.Spec.Template.Metadata.Labels) {
				t.Errorf("%s: %s does not select the server: %v %v", name, which, selector, err)
			}
			for job, other := range all {
				if other.Kind == "Job" && subset(selector, other.Spec.Template.Metadata.Labels) {
					t.Errorf("%s: %s sends requests to %s", name, which, job)
				}
			}
		case "Job":
			jobs++
			fallthrough
		case "StatefulSet":
			checkPod(t, name+": "+which, m, all)
		case "Secret":
			t.Errorf("%s: a %s: secrets are not the chart's", name, which)
		}
	}
	if (name == "all") != (jobs == 1) {
		t.Errorf("%s: %d jobs", name, jobs)
	}
}

func subset(part, of map[string]string) bool {
	for k, v := range part {
		if of[k] != v {
			return false
		}
	}
	return len(part) > 0
}

func checkPod(t *testing.T, name string, m manifest, all map[string]manifest) {
	t.Helper()
	p, c := m.Spec.Template.Spec, m.Spec.Template.Spec.Containers[0]
	no := func(b *bool) bool { return b != nil && !*b }
	if s := p.SecurityContext; !s.RunAsNonRoot || s.SeccompProfile.Type != "RuntimeDefault" || !no(p.AutomountServiceAccountToken) || !no(p.EnableServiceLinks) ||
		!no(c.SecurityContext.AllowPrivilegeEscalation) || !c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []string{"ALL"}) {
		t.Errorf("%s may do more than it needs: %+v %+v", name, p, c.SecurityContext)
	}
	volumes := map[string]bool{}
	for _, v := range p.Volumes {
		volumes[v.Name] = true
		if v.ConfigMap.Name != "" && all["ConfigMap "+v.ConfigMap.Name].Kind == "" {
			t.Errorf("%s: there is no ConfigMap %s", name, v.ConfigMap.Name)
		}
		if v.Secret.SecretName != "" && v.Secret.DefaultMode != 0o400 {
			t.Errorf("%s: the secret %s has mode %04o", name, v.Secret.SecretName, v.Secret.DefaultMode)
		}
	}
	for _, v := range m.Spec.VolumeClaimTemplates {
		volumes[v.Metadata.Name] = true
	}
	for _, mount := range c.VolumeMounts {
		if !volumes[mount.Name] {
			t.Errorf("%s: there is no volume %s", name, mount.Name)
		}
		delete(volumes, mount.Name)
		if writable := mount.Name == "data" || mount.Name == "backups"; mount.ReadOnly == writable {
			t.Errorf("%s: %s is read-only: %t", name, mount.Name, mount.ReadOnly)
		}
	}
	if len(volumes) > 0 {
		t.Errorf("%s: %v are mounted nowhere", name, volumes)
	}
}

func TestChartRefuses(t *testing.T) {
	for _, c := range []struct{ value, says string }{
		{"tls.existingSecret=", "terminatedByProxy"},
		{"tls.terminatedByProxy=true", "not both"},
		{"image.repository=", "image.repository"},
		{"image.digest=sha256:1", "image.digest"},
		{"masterKey.existingSecret=", "masterKey.existingSecret"},
		{"rootKey.existingSecret=", "rootKey.existingSecret"},
		{"rootKey.secret=swordfish", "secret is not allowed"},
		{"replicas=2", "replicas is not allowed"},
		{"config.listen=:1", "config.listen"},
		{"config.root-secret-access-key=swordfish", "config.root-secret-access-key"},
		{"extraEnv[0].name=COPSE_LISTEN", "extraEnv: COPSE_LISTEN is set by config"},
		{`podLabels.app\.kubernetes\.io/component=client`, "podLabels: app.kubernetes.io/component is the chart's own"},
		{"terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds"},
		{"persistence.directory=../x", "persistence.directory"},
	} {
		_, err := renderChart(t, leastValues, tlsValues, []string{c.value})
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want to be told of %q", c.value, err, c.says)
		}
	}
	// What runs once in place of the server opens no request, and gets no key for any.
	text, err := renderChart(t, leastValues, tlsValues, []string{"maintenance={check,--data=/data/copse}"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "policyTypes: [Ingress]\n") {
		t.Error("egress is narrowed although no value says so")
	}
	text, err = renderChart(t, leastValues, tlsValues, []string{"networkPolicy.egress[0].to[0].ipBlock.cidr=192.0.2.0/24", "maintenance={check,--data=/data/copse}"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "policyTypes: [Ingress, Egress]\n  egress:\n    - to:\n      - ipBlock:\n          cidr: 192.0.2.0/24\n") {
		t.Errorf("the egress rule is not in\n%s", text)
	}
	jobs := 0
	for object := range strings.SplitSeq(text, "\n---\n") {
		if strings.Contains(object, "\nkind: Job\n") {
			if jobs++; strings.Contains(object, "COPSE_ROOT_") {
				t.Errorf("maintenance has the root key:\n%s", object)
			}
		}
	}
	if jobs != 1 {
		t.Errorf("%d jobs in\n%s", jobs, text)
	}
	if _, err := renderChart(t, leastValues, []string{"tls.terminatedByProxy=true", "tls.clientCASecret=ca"}); err == nil || !strings.Contains(err.Error(), "needs tls.existingSecret") {
		t.Errorf("clients' certificates without TLS: %v", err)
	}
}

// The process that the chart describes is started as a kubelet would: its arguments and environment, its files
// where and as they are mounted, its user, and its probes asked. Only the directory that stands for the
// container's root and the ports are this machine's.
func TestChartsProcess(t *testing.T) {
	text, err := renderChart(t, leastValues, tlsValues, []string{"config.drain-delay=0s", "routes.routes[0].route=GET /invoices", "routes.routes[0].action=list", `routes.routes[0].resource=Invoices::"all"`, "routes.routes[0].service=invoices"})
	if err != nil {
		t.Fatal(err)
	}
	all := manifests(t, text)
	p := all["StatefulSet rel"].Spec.Template.Spec
	c := p.Containers[0]
	k := &kubelet{t: t, root: t.TempDir(), pod: p}
	k.must(os.Chmod(filepath.Dir(k.root), 0o755)) // the directory that the test's are in is its owner's alone
	for _, port := range c.Ports {
		k.replace = append(k.replace, fmt.Sprintf("listen: :%d\n", port.ContainerPort), "listen: "+k.port(port.Name)+"\n")
	}
	for _, mount := range c.VolumeMounts {
		k.replace = append(k.replace, mount.MountPath+"/", k.root+mount.MountPath+"/", " "+mount.MountPath+"\n", " "+k.root+mount.MountPath+"\n")
	}
	k.secrets(all)
	binary, _ := buildCopse(t)
	if out, err := k.command(binary, "config", "check", "/etc/copse/config/copse.yaml").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	server := k.command(binary, c.Args...)
	var log bytes.Buffer
	server.Stdout, server.Stderr = &log, &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	for name, probe := range map[string]probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if err := k.ask(http.DefaultClient, "http://"+k.ports[probe.HTTPGet.Port]+probe.HTTPGet.Path, ""); err != nil {
			t.Errorf("the %s probe: %v", name, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: k.trusted}}}
	if err := k.ask(client, "https://"+k.ports["api"]+"/v1/tenants", "copse_"+k.values["root id"]+"_"+k.values["root secret"]); err != nil {
		t.Errorf("the API with the root key: %v", err)
	}
	_ = server.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil || t.Failed() {
		t.Errorf("it ended with %v\n%s", err, &log)
	}
}

// kubelet is what the one of a node does for a pod.
type kubelet struct {
	t       *testing.T
	root    string // the container's
	pod     pod
	replace []string
	ports   map[string]string // addresses by name
	values  map[string]string // of secrets
	trusted *x509.CertPool
}

func (k *kubelet) port(name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		k.t.Fatal(err)
	}
	defer l.Close()
	if k.ports == nil {
		k.ports = map[string]string{}
	}
	k.ports[name] = l.Addr().String()
	return k.ports[name]
}

// secrets puts the volumes in place. With fsGroup, files of secrets are root's and the group may read them too.
func (k *kubelet) secrets(all map[string]manifest) {
	id, secret, master := make([]byte, 12), make([]byte, 24), make([]byte, 32)
	for _, b := range [][]byte{id, secret, master} {
		_, _ = rand.Read(b)
	}
	k.values = map[string]string{"root id": fmt.Sprintf("%x", id), "root secret": fmt.Sprintf("%x", secret), "master master.key": fmt.Sprintf("%x", master)}
	k.certificate()
	volumes := map[string]volume{}
	for _, v := range k.pod.Volumes {
		volumes[v.Name] = v
	}
	for _, mount := range k.pod.Containers[0].VolumeMounts {
		dir := k.root + mount.MountPath
		files := map[string]string{}
		mode := os.FileMode(0o644)
		for name, text := range all["ConfigMap "+volumes[mount.Name].ConfigMap.Name].Data {
			files[name] = strings.NewReplacer(k.replace...).Replace(text)
		}
		if v := volumes[mount.Name].Secret; v.SecretName != "" {
			mode = os.FileMode(v.DefaultMode) | 0o040
			for key, text := range k.values {
				if name, ok := strings.CutPrefix(key, v.SecretName+" "); ok {
					files[name] = text
				}
			}
		}
		k.must(os.MkdirAll(dir, 0o755))
		for name, text := range files {
			k.must(os.WriteFile(filepath.Join(dir, name), []byte(text), mode))
			k.must(os.Chmod(filepath.Join(dir, name), mode))
			k.ofGroup(filepath.Join(dir, name))
		}
		if !mount.ReadOnly {
			k.must(os.Chmod(dir, 0o775|os.ModeSetgid))
			k.ofGroup(dir)
		}
	}
}

func (k *kubelet) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// ofGroup needs root. Without it, files are whoever's who tests, and a secret that a group may read is refused.
func (k *kubelet) ofGroup(path string) {
	if os.Geteuid() == 0 {
		k.must(os.Chown(path, 0, int(k.pod.SecurityContext.FSGroup)))
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&0o077 == 0o040 {
		k.must(os.Chmod(path, 0o400))
	}
}

func (k *kubelet) certificate() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	k.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	k.must(err)
	k.values["certificate tls.crt"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	k.values["certificate tls.key"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	k.trusted = x509.NewCertPool()
	k.trusted.AppendCertsFromPEM([]byte(k.values["certificate tls.crt"]))
}

// command is a process of the container's, as its user if this is root.
func (k *kubelet) command(binary string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	k.t.Cleanup(cancel)
	replaced := make([]string, len(args))
	for i, arg := range args {
		replaced[i] = strings.NewReplacer(k.replace...).Replace(arg)
	}
	cmd := exec.CommandContext(ctx, binary, replaced...)
	cmd.Dir = k.root
	for _, e := range k.pod.Containers[0].Env {
		value := e.Value
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			value = k.values[ref.Name+" "+ref.Key]
		}
		cmd.Env = append(cmd.Env, e.Name+"="+value)
	}
	if s := k.pod.SecurityContext; os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: s.RunAsUser, Gid: s.RunAsGroup, Groups: []uint32{s.FSGroup}}}
	}
	return cmd
}

// ask asks until the answer is good, as long as a start-up may take.
func (k *kubelet) ask(client *http.Client, url, key string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := client.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("%s: %s", url, resp.Status)
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}
