package deploy

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// No account of the chart can read secrets: the token of the DaemonSet is on every node. Only the resizer has
// the rights of the resizer.
func TestRights(t *testing.T) {
	_, objects := decode(t, render(t, "{}"))
	accounts := map[string]string{} // by name of the pods' owner
	for _, o := range objects {
		var rules []rbacv1.PolicyRule
		name := ""
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			name, rules = o.Name, o.Rules
		case *rbacv1.Role:
			name, rules = o.Name, o.Rules
		case *appsv1.DaemonSet:
			accounts[o.Name] = o.Spec.Template.Spec.ServiceAccountName
		case *appsv1.Deployment:
			accounts[o.Name] = o.Spec.Template.Spec.ServiceAccountName
		case *rbacv1.ClusterRoleBinding:
			if o.RoleRef.Name != o.Name || len(o.Subjects) != 1 || o.Subjects[0].Name != o.Name {
				t.Errorf("binding %+v", o)
			}
		case *rbacv1.RoleBinding:
			if o.RoleRef.Name != o.Name || len(o.Subjects) != 1 || o.Subjects[0].Name != o.Name {
				t.Errorf("binding %+v", o)
			}
		}
		for _, rule := range rules {
			if slices.Contains(rule.Resources, "secrets") || slices.Contains(rule.Resources, "*") {
				t.Errorf("%s: %v", name, rule)
			}
			if slices.Contains(rule.Resources, "persistentvolumeclaims/status") && name != "ublk-loop-csi-resizer" {
				t.Errorf("%s changes the status of claims", name)
			}
		}
	}
	for name, account := range accounts {
		if account != name {
			t.Errorf("%s has the account %s", name, account)
		}
	}
	if len(accounts) != 2 {
		t.Errorf("accounts %v", accounts)
	}
}

// containers returns the containers of the chart by name.
func containers(t *testing.T, change string) map[string]corev1.Container {
	t.Helper()
	_, objects := decode(t, render(t, change))
	all := map[string]corev1.Container{}
	for _, o := range objects {
		var spec corev1.PodSpec
		switch o := o.(type) {
		case *appsv1.DaemonSet:
			spec = o.Spec.Template.Spec
		case *appsv1.Deployment:
			spec = o.Spec.Template.Spec
		}
		for _, c := range spec.Containers {
			all[c.Name] = c
		}
	}
	return all
}

// Only the driver is privileged. The others reach its socket also with SELinux.
func TestSecurityContexts(t *testing.T) {
	all := containers(t, "{}")
	if len(all) != 6 {
		t.Errorf("%d containers", len(all))
	}
	for name, c := range all {
		s := c.SecurityContext
		switch {
		case s == nil:
			t.Errorf("%s has no securityContext", name)
		case name == "driver":
			if s.Privileged == nil || !*s.Privileged {
				t.Error("the driver is not privileged")
			}
		case s.Privileged != nil, s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation,
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}),
			s.SELinuxOptions == nil || s.SELinuxOptions.Type != "spc_t":
			t.Errorf("%s: %+v", name, s)
		}
	}
}

// kubelet does not end a driver that is not ready, which it is not while ublk-loop serve is not there. With the
// driver, the keys of encrypted volumes would go.
func TestProbes(t *testing.T) {
	driver := containers(t, "{}")["driver"]
	if driver.LivenessProbe != nil || driver.StartupProbe != nil || driver.ReadinessProbe == nil {
		t.Errorf("probes %v, %v, %v", driver.LivenessProbe, driver.StartupProbe, driver.ReadinessProbe)
	}
}
