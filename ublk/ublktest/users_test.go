package ublktest

import (
	"os"
	"os/exec"
	"testing"
)

// Only a map with more than one user makes it possible to act as another user.
func TestNumberOfUsers(t *testing.T) {
	for text, want := range map[string]uint64{
		"":                                   0,
		"         0          0 4294967295\n": 4294967295,
		"         0      65534          1\n": 1,
		"0 1000 1\n1 100000 65536\n":         65537,
	} {
		if got := numberOfUsers(text); got != want {
			t.Errorf("%q: %d users, want %d", text, got, want)
		}
	}
}

// Root of a user namespace without other users has none.
func TestHasOtherUsers(t *testing.T) {
	if os.Getenv("UBLK_LOOP_IN_NAMESPACE") != "" {
		if HasOtherUsers() {
			t.Error("a user namespace with one user has others")
		}
		return
	}
	cmd := exec.Command("unshare", "--user", "--map-root-user", os.Args[0], "-test.run", "^TestHasOtherUsers$")
	cmd.Env = append(os.Environ(), "UBLK_LOOP_IN_NAMESPACE=1")
	out, err := cmd.CombinedOutput()
	if exec.Command("unshare", "--user", "--map-root-user", "true").Run() != nil {
		MachineLacks(t, "user namespaces")
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
