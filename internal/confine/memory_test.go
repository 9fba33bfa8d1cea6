package confine

import (
	"debug/elf"
	"debug/gosym"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

func TestOtherCode(t *testing.T) {
	functions := []struct {
		entry uintptr
		name  string
	}{
		{0x1000, "runtime.a"},
		{0x2000, "net.b"},
		{0x3000, "net/http.c"},
		{0x4000, "network.d"},
		{0x5000, ""},
		{0x6000, "vendor/x.f"},
		{0x8000, "github.com/ublk-loop/ublk-loop/loop.(*handler).Handle"},
		{0x9000, "net.(*x).g"},
		{0xb000, "vendor/x.h"},
		{0xb7f0, "crypto/rand.Read"}, // the shortest function, between two packages that do not serve
		{0xb800, "vendor/y.i"},
	}
	function := func(pc uintptr) (name string) {
		for _, f := range functions {
			if f.entry <= pc {
				name = f.name
			}
		}
		return name
	}
	other := otherCode(mapping{0x1000, 0xd000}, 0x1000, function, isServing)
	if want := []mapping{{0x2000, 0x3000}, {0x6000, 0x7000}, {0x9000, 0xb000}, {0xc000, 0xd000}}; !slices.Equal(other, want) {
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

// servingPackages returns the packages that a server needs while it serves: those that loop and the log depend on.
func servingPackages(t *testing.T) []string {
	t.Helper()
	return packagesBelow(t, "../../loop", "go.uber.org/zap/zapcore")
}

// packagesBelow returns packages and those that they depend on.
func packagesBelow(t *testing.T, packages ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-deps"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(p string) bool { return p == notCalled })
}

// The packages that loop and the log depend on are locked.
func TestServingPackages(t *testing.T) {
	for _, p := range servingPackages(t) {
		if !isServing(p + ".f") {
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

// Constants that were used again after GiveBack are freed again.
func TestFreeConstants(t *testing.T) {
	p, err := findProgram()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.constants.advise(unix.MADV_POPULATE_READ); err != nil {
		t.Fatal(err)
	}
	before := residentOf(t, p.constants)
	p.FreeConstants()
	if after := residentOf(t, p.constants); after > before/2 { // what is used now comes back
		t.Errorf("%d KiB of the constants are resident, then %d", before, after)
	}
	(*Program)(nil).FreeConstants() // after an error of LockMemory
}

// residentOf returns how much of a mapping of this process is resident, in KiB.
func residentOf(t *testing.T, m mapping) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), fmt.Sprintf("%08x-%08x ", m.start, m.end))
	_, after, _ = strings.Cut(after, "\nRss:")
	if _, err := fmt.Sscan(after, &kib); !found || err != nil {
		t.Fatalf("the mapping is there: %v, error %v", found, err)
	}
	return kib
}

// Of the program itself, no page with a function of a package that serves is given back, but at
// least a quarter of its code, which is found with fewer than two looks for each page. A process that controls no device
// gives back more.
func TestOtherCodeOfProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ublk-loop")
	if out, err := exec.Command("go", "build", "-o", path, "../../cmd/ublk-loop").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	code, functions := functionsOf(t, path)
	all := code.end - code.start
	first := checkOther(t, code, functions, servingPackages(t), isServing)
	only := append(packagesBelow(t, "../../loop/serving", "encoding/json"), "github.com/ublk-loop/ublk-loop/internal/confine", "github.com/ublk-loop/ublk-loop/internal/apart")
	second := checkOther(t, code, functions, only, isServingOnly)
	if first < all/4 || second < first+512<<10 {
		t.Errorf("%d bytes of %d are given back, and %d without control", first, all, second)
	}
}

// checkOther checks that no page with a function of some packages, or with one that the compiler has made for them, is given back,
// and returns how many bytes are.
func checkOther(t *testing.T, code mapping, functions *gosym.Table, packages []string, serves func(string) bool) (bytes uintptr) {
	t.Helper()
	made := madeFor(t, packages)
	looked := 0
	other := otherCode(code, 0x1000, func(pc uintptr) string {
		looked++
		if f := functions.PCToFunc(uint64(pc)); f != nil {
			return f.Name
		}
		return ""
	}, serves)
	for _, m := range other {
		bytes += m.end - m.start
		for i := range functions.Funcs {
			f := &functions.Funcs[i]
			overlaps := uintptr(f.Entry) < m.end && uintptr(f.End) > m.start
			if overlaps && (slices.Contains(packages, packageOf(f.Name)) || made[f.Name]) {
				t.Errorf("%s at %#x serves, and is given back with %#x", f.Name, f.Entry, m)
			}
		}
	}
	if all := code.end - code.start; uintptr(looked) > 2*all/0x1000 {
		t.Errorf("%d bytes of %d are given back, after %d looks", bytes, all, looked)
	}
	return bytes
}

// madeFor returns the functions without a package (packageOf) that the compiler has made for some packages. The linker keeps one of
// those that are made for several packages, and places it with any of them.
func madeFor(t *testing.T, packages []string) map[string]bool {
	t.Helper()
	objects, err := exec.Command("go", append([]string{"list", "-export", "-f", "{{with .Export}}{{.}}{{end}}"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := exec.Command("go", append([]string{"tool", "nm", "-type"}, strings.Fields(string(objects))...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]bool{}
	for line := range strings.Lines(string(symbols)) {
		_, name, isCode := strings.Cut(strings.TrimSuffix(line, "\n"), " T ")
		if isCode && packageOf(name) == "" {
			made[name] = true
		}
	}
	if len(made) == 0 {
		t.Error("no function is made for the packages, not even a method value")
	}
	return made
}

// functionsOf returns the pages with a program's code, and its functions.
func functionsOf(t *testing.T, path string) (mapping, *gosym.Table) {
	program, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = program.Close() }()
	text := program.Section(".text")
	lines, err := program.Section(".gopclntab").Data()
	if err != nil {
		t.Fatal(err)
	}
	functions, err := gosym.NewTable(nil, gosym.NewLineTable(lines, text.Addr))
	if err != nil {
		t.Fatal(err)
	}
	return mapping{uintptr(text.Addr) &^ 0xfff, uintptr(text.Addr+text.Size+0xfff) &^ 0xfff}, functions
}
