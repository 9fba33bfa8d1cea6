package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// scatteredPages is more than a process of the host can map by default (vm.max_map_count), and
// fits into the memory of a guest.
const scatteredPages = 80_000

// A process in the guest can have more scattered pages than Linux allows mappings by default.
// setup.sh makes it so, if it runs as root.
func TestGuestScattersPages(t *testing.T) {
	cachedKernel(t)
	if out, err := exec.Command("../setup.sh").CombinedOutput(); err != nil {
		t.Fatalf("setup.sh: %v\n%s", err, out)
	}
	if limit := mappingLimit(t); limit < scatteredPages && !ublktest.HasOtherUsers() {
		ublktest.MachineLacks(t, fmt.Sprintf("root, who can raise vm.max_map_count from %d", limit))
	}
	program := filepath.Join(t.TempDir(), "scatter")
	build := exec.Command("go", "build", "-o", program, "./testdata/scatter")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command("../vm.sh", "run", "uml", "--modules", "", "--timeout", "60", "--file", program,
		"--", "/vm/files/scatter", strconv.Itoa(scatteredPages)).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "done\n") {
		t.Errorf("a guest's process with %d pages: %v\n%s", scatteredPages, err, out)
	}
}

func mappingLimit(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/vm/max_map_count")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return limit
}
