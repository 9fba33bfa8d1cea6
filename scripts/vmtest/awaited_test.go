package vmtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A run that has tests of the kernel does not skip the tests here because the kernel is not built
// yet. It waits for the kernel, and fails if there is none.
func TestAwaitsKernelOfGuest(t *testing.T) {
	for tier, want := range map[string]string{"": "--- SKIP", "unit": "--- SKIP", "quick": "--- FAIL", "full": "--- FAIL"} {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run", "^TestGuestScattersPages$")
		// No kernel can be built in this cache.
		cmd.Env = append(os.Environ(), "UBLK_LOOP_TIER="+tier, "UBLK_LOOP_CACHE=/proc/none")
		out, err := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || tier == "quick" && !strings.Contains(string(out), "/proc/none") {
			t.Errorf("tier %q: error %v, want %q in\n%s", tier, err, want, out)
		}
	}
}
