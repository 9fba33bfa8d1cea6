package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file keeps a server from waiting for memory. The kernel may free memory by writing
// a page to the server's own device, so that the server would wait for itself.

// Program records the places of this program in memory.
type Program struct {
	code, constants mapping
}

// LockMemory locks the pages that the server has used or will use, and the program's code, used
// or not. Large mappings that Go does not use get no memory (MCL_ONFAULT in mlock2(2),
// Linux 4.4). It needs CAP_IPC_LOCK.
func LockMemory() (*Program, error) {
	p, err := findProgram()
	if err != nil {
		return nil, err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	err = p.code.advise(unix.MADV_POPULATE_READ)
	if err != nil && !errors.Is(err, unix.EINVAL) { // before Linux 5.14
		return nil, fmt.Errorf("read the program's code: %w", err)
	}
	return p, nil
}

// GiveBack frees the program's code that does not serve devices, and the constants that only the
// start has used. Constants that are used again become resident and locked again
// (MADV_DONTNEED_LOCKED in madvise(2), Linux 5.18). Older kernels keep all pages. It takes
// milliseconds to find this code, which the start of a server need not wait for.
func (p *Program) GiveBack() { p.giveBack(isServing) }

// GiveBackControl does the same for a process that serves the requests of a device and does not control it. While that
// process serves, it must call no function of the packages in controlling: the code would come back from the program's file,
// which may be on the device. The function that calls GiveBackControl may be in such a package: its page comes back at once.
func (p *Program) GiveBackControl() { p.giveBack(isServingOnly) }

func (p *Program) giveBack(serves func(function string) bool) {
	if p == nil {
		return
	}
	for _, m := range append(otherCode(p.code, uintptr(os.Getpagesize()), functionAt, serves), p.constants) {
		_ = m.advise(unix.MADV_DONTNEED_LOCKED)
	}
}

// FreeConstants frees the constants that have been used since GiveBack.
func (p *Program) FreeConstants() {
	if p != nil {
		_ = p.constants.advise(unix.MADV_DONTNEED_LOCKED) // see GiveBack
	}
}

// FreeProgram frees the pages of the program of a process that has not locked its memory. What is
// used again comes back.
func FreeProgram() error {
	p, err := findProgram()
	if err != nil {
		return err
	}
	return errors.Join(p.code.advise(unix.MADV_DONTNEED), p.constants.advise(unix.MADV_DONTNEED))
}

func findProgram() (*Program, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("find the program's code: %w", err)
	}
	defer func() { _ = maps.Close() }()
	p := &Program{}
	p.code, p.constants, err = findCode(maps)
	return p, err
}

// mapping is a range of this process's memory.
type mapping struct{ start, end uintptr }

// advise calls madvise(2).
func (m mapping) advise(advice uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, advice); errno != 0 {
		return errno
	}
	return nil
}

// findCode returns the first executable mapping, which in a static program is its code,
// and the mapping after it, which has its constants (proc_pid_maps(5)).
func findCode(maps io.Reader) (code, constants mapping, err error) {
	text, err := io.ReadAll(maps)
	if err != nil {
		return code, constants, fmt.Errorf("find the program's code: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		var m mapping
		var mode string
		n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &mode)
		switch {
		case n < 3:
		case code.end != 0:
			return code, m, nil
		case mode == "r-xp":
			code = m
		}
	}
	return code, constants, fmt.Errorf("find the program's code: %w", unix.ENOENT)
}

// notServing lists packages that only commands, and requests at the socket of serve,
// need. With the packages below them they are half of the program.
var notServing = []string{
	"net", "mime", "vendor", "html", "regexp", "text", "compress", "math/big", "encoding/asn1", "encoding/pem",
	"crypto/tls", "crypto/x509", "crypto/ecdsa", "crypto/ecdh", "crypto/elliptic", "crypto/hpke", "crypto/rsa", "crypto/dsa",
	"crypto/internal/fips140/bigmod", "crypto/internal/fips140/edwards25519", "crypto/internal/fips140/mlkem",
	"crypto/internal/fips140/nistec", "crypto/internal/fips140/rsa", "crypto/internal/fips140/tls12", "crypto/internal/fips140/tls13",
	"github.com/spf13", "github.com/BurntSushi", "github.com/godbus", "github.com/smallstep", "golang.org/x/crypto/argon2", "golang.org/x/crypto/blake2b", "github.com/ublk-loop/ublk-loop/transfer/luks",
	"github.com/ublk-loop/ublk-loop/client", "github.com/ublk-loop/ublk-loop/internal/control", "github.com/ublk-loop/ublk-loop/internal/keysource",
	"github.com/ublk-loop/ublk-loop/internal/losetup", "github.com/ublk-loop/ublk-loop/internal/mounthelper",
	"github.com/ublk-loop/ublk-loop/internal/oci", "github.com/ublk-loop/ublk-loop/internal/verityfile",
	"github.com/ublk-loop/ublk-loop/internal/top", "github.com/ublk-loop/ublk-loop/internal/wire",
}

// isServing reports whether a server may call the function while it serves. Functions
// without a package belong to the runtime.
func isServing(function string) bool {
	for _, p := range notServing {
		rest, found := strings.CutPrefix(function, p)
		if found && rest != "" && (rest[0] == '/' || rest[0] == '.') {
			return false
		}
	}
	return true
}

// controlling lists packages, without those below them, that a process needs to control a device and not to serve its
// requests. They are 600 KiB.
var controlling = []string{
	"main", "github.com/ublk-loop/ublk-loop/loop", "github.com/ublk-loop/ublk-loop/loop/cowfile",
	"github.com/ublk-loop/ublk-loop/loop/internal/statefile", "github.com/ublk-loop/ublk-loop/internal/daemon",
	"github.com/ublk-loop/ublk-loop/internal/report", "github.com/ublk-loop/ublk-loop/internal/systemd",
	"github.com/ublk-loop/ublk-loop/internal/udev", "go.uber.org/zap", "go.uber.org/zap/zapcore", "crypto/internal/fips140/ecdsa",
}

// isServingOnly is isServing for a process that does not control devices.
func isServingOnly(function string) bool {
	return isServing(function) && !slices.Contains(controlling, packageOf(function))
}

// functionAt returns the name of the function at an address, or "".
func functionAt(pc uintptr) string {
	f := runtime.FuncForPC(pc)
	if f == nil {
		return ""
	}
	// The entry belongs to the function itself, other addresses may belong to inlined
	// functions.
	return runtime.FuncForPC(f.Entry()).Name()
}

// otherCode returns the pages of code without functions that a server may call while it serves.
// The linker places the functions of a package next to each other, so that both ends of a range
// tell what is between them if they are in one package. The first function of the next page stands
// for the last function of a page.
func otherCode(code mapping, page uintptr, function func(uintptr) string, serves func(string) bool) []mapping {
	s := codeSplitter{page: page, function: function, serves: serves}
	s.split(code, function(code.start), function(code.end))
	return s.other
}

type codeSplitter struct {
	page     uintptr
	function func(uintptr) string
	serves   func(string) bool
	other    []mapping
}

// split splits a range, whose ends are in the functions first and last.
func (s *codeSplitter) split(m mapping, first, last string) {
	if pages := (m.end - m.start) / s.page; pages > 1 && !inOnePackage(first, last) {
		middle := m.start + pages/2*s.page
		function := s.function(middle)
		s.split(mapping{m.start, middle}, first, function)
		s.split(mapping{middle, m.end}, function, last)
		return
	}
	switch n := len(s.other); {
	case s.isServing(m, first, last):
	case n > 0 && s.other[n-1].end == m.start:
		s.other[n-1].end = m.end
	default:
		s.other = append(s.other, m)
	}
}

// minFunction is the length of the shortest function in bytes (minfunc in runtime/symtab.go).
const minFunction = 16

// isServing reports whether a server may call a function of a range, whose ends are in the functions
// first and last.
func (s *codeSplitter) isServing(m mapping, first, last string) bool {
	switch {
	case s.serves(first) || s.serves(last):
		return true
	case inOnePackage(first, last) || m.end-m.start <= minFunction:
		return false
	}
	middle := m.start + (m.end-m.start)/2
	function := s.function(middle)
	return s.isServing(mapping{m.start, middle}, first, function) || s.isServing(mapping{middle, m.end}, function, last)
}

// inOnePackage reports whether all functions between two functions are of one package.
func inOnePackage(first, last string) bool {
	p := packageOf(first)
	return p != "" && p == packageOf(last)
}

// packageOf returns the package in which the linker places a function: what is before the first
// dot after the last slash. It returns "" for a function that may be in any package: one that the
// compiler has made from a generic function, a method value or for a type.
func packageOf(function string) string {
	if strings.ContainsAny(function, "[:") || strings.HasSuffix(function, "-fm") {
		return ""
	}
	slash := strings.LastIndexByte(function, '/') + 1
	path, _, _ := strings.Cut(function[slash:], ".")
	return function[:slash] + path
}

// gcLimit is the number of bytes that a server may allocate before Go collects garbage.
// It is far more than a server uses, because requests make no garbage.
const gcLimit = 128 << 20

// QuietGC switches garbage collection off. Otherwise Go would collect every two minutes,
// although there is no garbage.
func QuietGC() {
	debug.FreeOSMemory() // garbage of the start
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit)
}
