package deploy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write ublk-loop-csi.yaml again")

const plain = "ublk-loop-csi.yaml"

// functions are the functions of Helm that the chart uses. The chart uses no others, so that
// this test needs no Helm.
var functions = template.FuncMap{
	"toYaml": func(v any) (string, error) {
		text, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(text), "\n"), err
	},
	"nindent": func(n int, text string) string {
		pad := "\n" + strings.Repeat(" ", n)
		return pad + strings.ReplaceAll(text, "\n", pad)
	},
}

// values returns the default values of the chart, changed by others.
func values(t *testing.T, change string) map[string]any {
	t.Helper()
	text, err := os.ReadFile("chart/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all, changed map[string]any
	if err := errors.Join(yaml.UnmarshalStrict(text, &all), yaml.UnmarshalStrict([]byte(change), &changed)); err != nil {
		t.Fatal(err)
	}
	merge(all, changed)
	return all
}

// merge changes values as Helm does: maps are merged, and everything else is replaced.
func merge(into, from map[string]any) {
	for key, value := range from {
		inner, isMap := value.(map[string]any)
		if old, ok := into[key].(map[string]any); ok && isMap {
			merge(old, inner)
			continue
		}
		into[key] = value
	}
}

// render returns the documents of the chart.
func render(t *testing.T, change string) []byte {
	t.Helper()
	files, err := filepath.Glob("chart/templates/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("templates %q, error %v", files, err)
	}
	slices.Sort(files)
	data := map[string]any{"Values": values(t, change), "Release": map[string]any{"Namespace": "ublk-loop-csi"}}
	var out bytes.Buffer
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := template.New(file).Option("missingkey=zero").Funcs(functions).Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n")
		if err := parsed.Execute(&out, data); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// kinds are the types of the documents.
var kinds = map[string]func() any{
	"storage.k8s.io/v1 CSIDriver":                    func() any { return &storagev1.CSIDriver{} },
	"storage.k8s.io/v1 StorageClass":                 func() any { return &storagev1.StorageClass{} },
	"snapshot.storage.k8s.io/v1 VolumeSnapshotClass": func() any { return &snapshotv1.VolumeSnapshotClass{} },
	"v1 Namespace":      func() any { return &corev1.Namespace{} },
	"v1 ServiceAccount": func() any { return &corev1.ServiceAccount{} },
	"rbac.authorization.k8s.io/v1 ClusterRole":        func() any { return &rbacv1.ClusterRole{} },
	"rbac.authorization.k8s.io/v1 ClusterRoleBinding": func() any { return &rbacv1.ClusterRoleBinding{} },
	"rbac.authorization.k8s.io/v1 Role":               func() any { return &rbacv1.Role{} },
	"rbac.authorization.k8s.io/v1 RoleBinding":        func() any { return &rbacv1.RoleBinding{} },
	"monitoring.coreos.com/v1 PodMonitor":             func() any { return &monitoringv1.PodMonitor{} },
	"apps/v1 DaemonSet":                               func() any { return &appsv1.DaemonSet{} },
	"apps/v1 Deployment":                              func() any { return &appsv1.Deployment{} },
}

// decode decodes all documents, and fails for a field or kind that Kubernetes does not know.
// It returns how many there are of each kind.
func decode(t *testing.T, text []byte) (counts map[string]int, objects []any) {
	t.Helper()
	counts = map[string]int{}
	for document := range bytes.SplitSeq(text, []byte("---\n")) {
		if document = bytes.TrimSpace(document); len(document) == 0 || bytes.HasPrefix(document, []byte("# Made")) {
			continue
		}
		var header struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(document, &header); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		kind := header.APIVersion + " " + header.Kind
		if kinds[kind] == nil {
			t.Errorf("kind %q is unknown", kind)
			continue
		}
		object := kinds[kind]()
		if err := yaml.UnmarshalStrict(document, object); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		counts[header.Kind]++
		objects = append(objects, object)
	}
	return counts, objects
}

// Kubernetes knows every field of what the chart makes, with the default values and with
// others.
func TestChart(t *testing.T) {
	base := map[string]int{
		"CSIDriver": 1, "StorageClass": 1, "VolumeSnapshotClass": 1, "ServiceAccount": 2, "ClusterRole": 2,
		"ClusterRoleBinding": 2, "Role": 2, "RoleBinding": 2, "DaemonSet": 1, "Deployment": 1,
	}
	for change, want := range map[string]map[string]int{
		"{}":              {},
		"republish: true": {},
		"ephemeral: {enabled: false, limit: 10G}":                 {},
		"metrics: {enabled: true, labels: {release: prometheus}}": {"PodMonitor": 1},
		"metrics: {enabled: true, podMonitor: false}":             {},
		"sidecars: {snapshotter: {enabled: false}}":               {"VolumeSnapshotClass": 0},
		"storageClasses: [{name: a, reclaimPolicy: Retain, default: true, mountOptions: [noatime], parameters: {encryption: luks2}}, {name: b, reclaimPolicy: Delete}]": {"StorageClass": 2},
		"{tolerations: [{operator: Exists}], affinity: {nodeAffinity: {}}, imagePullSecrets: [{name: x}], resources: {limits: {memory: 1Gi}}}":                          {},
	} {
		expected := maps.Clone(base)
		maps.Copy(expected, want)
		maps.DeleteFunc(expected, func(_ string, n int) bool { return n == 0 })
		if got, _ := decode(t, render(t, change)); !maps.Equal(got, expected) {
			t.Errorf("%s: %v, want %v", change, got, expected)
		}
	}
}

// A wrong field is found, so that TestChart can fail.
func TestStrictness(t *testing.T) {
	text := []byte("apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nspec: {attachRequire: false}\n")
	if err := yaml.UnmarshalStrict(text, &storagev1.CSIDriver{}); err == nil || !strings.Contains(err.Error(), "attachRequire") {
		t.Errorf("error %v", err)
	}
}

// The directories of kubelet, of the pool and of the server are the same in the container
// as on the node, and kubelet sees the mounts.
func TestPaths(t *testing.T) {
	_, objects := decode(t, render(t, "{kubeletPath: /k, poolPath: /p, serveDirectory: /s}"))
	var spec corev1.PodSpec
	for _, o := range objects {
		if d, is := o.(*appsv1.DaemonSet); is {
			spec = d.Spec.Template.Spec
		}
	}
	paths := map[string]string{}
	for _, v := range spec.Volumes {
		paths[v.Name] = v.HostPath.Path
	}
	for _, m := range spec.Containers[0].VolumeMounts {
		if paths[m.Name] != m.MountPath && m.Name != "socket" {
			t.Errorf("%s is %s in the container, %s on the node", m.Name, m.MountPath, paths[m.Name])
		}
		if propagated := m.MountPropagation != nil && *m.MountPropagation == corev1.MountPropagationBidirectional; propagated != (m.Name == "kubelet") {
			t.Errorf("%s: propagation %v", m.Name, m.MountPropagation)
		}
	}
	if paths["socket"] != "/k/plugins/csi.ublk-loop" {
		t.Errorf("the socket is in %s", paths["socket"])
	}
}

// Kubernetes knows of ephemeral volumes, and the driver of their limit, as the values say.
func TestEphemeralValues(t *testing.T) {
	const flag = "--ephemeral-limit="
	for change, want := range map[string]struct {
		limit string
		modes []storagev1.VolumeLifecycleMode
	}{
		"{}":                               {"", []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}},
		"ephemeral: {limit: 10G}":          {flag + "10G", []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}},
		`ephemeral: {limit: "1073741824"}`: {flag + "1073741824", []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral}},
		"ephemeral: {enabled: false}":      {"", []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}},
	} {
		_, objects := decode(t, render(t, change))
		limit, modes := "", []storagev1.VolumeLifecycleMode(nil)
		for _, o := range objects {
			switch o := o.(type) {
			case *appsv1.DaemonSet:
				for _, arg := range o.Spec.Template.Spec.Containers[0].Args {
					if strings.HasPrefix(arg, flag) {
						limit = arg
					}
				}
			case *storagev1.CSIDriver:
				modes = o.Spec.VolumeLifecycleModes
			}
		}
		if limit != want.limit || !slices.Equal(modes, want.modes) {
			t.Errorf("%s: flag %q, modes %v", change, limit, modes)
		}
	}
}

// A PodMonitor leads to the port at which the driver answers, and the driver has no such port unless
// it is asked for.
func TestPodMonitor(t *testing.T) {
	for change, port := range map[string]int32{"{}": 0, "metrics: {enabled: true, port: 1234}": 1234} {
		_, objects := decode(t, render(t, change))
		var driver corev1.Container
		named := ""
		for _, o := range objects {
			switch o := o.(type) {
			case *appsv1.DaemonSet:
				driver = o.Spec.Template.Spec.Containers[0]
			case *monitoringv1.PodMonitor:
				named = *o.Spec.PodMetricsEndpoints[0].Port
			}
		}
		var listens []string
		for _, arg := range driver.Args {
			if address, ok := strings.CutPrefix(arg, "--metrics="); ok {
				listens = append(listens, address)
			}
		}
		i := slices.IndexFunc(driver.Ports, func(p corev1.ContainerPort) bool { return p.Name == "metrics" })
		switch {
		case port == 0:
			if i >= 0 || len(listens) > 0 || named != "" {
				t.Errorf("%s: port %d, addresses %q, PodMonitor of %q", change, i, listens, named)
			}
		case i < 0 || driver.Ports[i].ContainerPort != port || named != "metrics" || len(listens) != 1 || listens[0] != fmt.Sprint(":", port):
			t.Errorf("%s: ports %v, addresses %q, PodMonitor of %q", change, driver.Ports, listens, named)
		}
	}
}

// The plain file is what the chart makes of its default values.
func TestPlainFile(t *testing.T) {
	want := append([]byte("# Made from the chart: go test ./deploy -update\n---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: ublk-loop-csi\n"+
		"  labels:\n    pod-security.kubernetes.io/enforce: privileged\n"), render(t, "{}")...)
	if *update {
		if err := os.WriteFile(plain, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(plain)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s differs from the chart, error %v", plain, err)
	}
	decode(t, want)
}
