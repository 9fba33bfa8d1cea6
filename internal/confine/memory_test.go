package confine

import (
	"math"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

func TestFindCode(t *testing.T) {
	const maps = "00400000-00401000 r--p 00000000 fe:00 1 /bin/x\n" +
		"00401000-005ec000 r-xp 00001000 fe:00 1 /bin/x\n" +
		"7fff0000-7fff2000 r-xp 00000000 00:00 0 [vdso]\n"
	const more = "005ec000-00800000 r--p 001ec000 fe:00 1 /bin/x\n"
	code, constants, err := findCode(strings.NewReader(maps + more))
	if err != nil || code != (mapping{0x401000, 0x5ec000}) || constants != (mapping{0x7fff0000, 0x7fff2000}) {
		t.Errorf("%#x, %#x, error %v", code, constants, err)
	}
	if _, _, err := findCode(strings.NewReader("00400000-00401000 r--p 0 fe:00 1 /bin/x\n" + more)); err == nil {
		t.Error("code where there is none")
	}
}

func TestSplitCode(t *testing.T) {
	functions := map[uintptr]string{
		0x1000: "runtime.a", 0x2000: "net.b", 0x3000: "net/http.c", 0x4000: "network.d",
		0x5000: "", 0x6000: "vendor/x.f", 0x7000: "vendor/x.f", 0x8000: "github.com/ublk-loop/ublk-loop/loop.(*handler).Handle",
		0x9000: "net.(*x).g", 0xa000: "net.(*x).g",
	}
	serving, other := splitCode(mapping{0x1000, 0xa000}, 0x1000, func(pc uintptr) string { return functions[pc] })
	if want := []mapping{{0x1000, 0x2000}, {0x3000, 0x6000}, {0x7000, 0x9000}}; !slices.Equal(serving, want) {
		t.Errorf("serving: %#x, want %#x", serving, want)
	}
	if want := []mapping{{0x2000, 0x3000}, {0x6000, 0x7000}, {0x9000, 0xa000}}; !slices.Equal(other, want) {
		t.Errorf("other: %#x, want %#x", other, want)
	}
}

// The code of an inlined function belongs to its caller.
func TestFunctionAt(t *testing.T) {
	pc, _, _, ok := runtime.Caller(0)
	if name := functionAt(pc); !ok || !strings.HasSuffix(name, ".TestFunctionAt") {
		t.Errorf("this is in %q", name)
	}
	if pc = inlinedPC(); !strings.HasSuffix(functionAt(pc), ".TestFunctionAt") {
		t.Errorf("%q, inlined here, has code of its own", functionAt(pc))
	}
	if name := functionAt(1); name != "" {
		t.Errorf("at 1 there is %q", name)
	}
}

func inlinedPC() uintptr {
	pc, _, _, _ := runtime.Caller(0)
	return pc
}

// notCalled is a package that crypto/rand imports for functions that loop does not call.
const notCalled = "math/big"

// The packages that loop and the log depend on are locked.
func TestServingPackages(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../../loop", "go.uber.org/zap/zapcore").Output()
	if err != nil {
		t.Fatal(err)
	}
	for p := range strings.Lines(string(out)) {
		if p = strings.TrimSpace(p); p != notCalled && !isServing(p+".f") {
			t.Errorf("package %s serves, and is not locked", p)
		}
	}
	for _, f := range []string{"main.main", "github.com/ublk-loop/ublk-loop/internal/daemon.(*single).serve", "runtime.mallocgc", ""} {
		if !isServing(f) {
			t.Errorf("%q serves, and is not locked", f)
		}
	}
}

func TestQuietGC(t *testing.T) {
	defer debug.SetMemoryLimit(math.MaxInt64)
	QuietGC()
	if percent := debug.SetGCPercent(100); percent != -1 {
		t.Errorf("garbage is collected at %d %%", percent)
	}
	if limit := debug.SetMemoryLimit(-1); limit != gcLimit {
		t.Errorf("the limit is %d", limit)
	}
}
