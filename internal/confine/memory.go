package confine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// This file keeps a server from waiting for memory: the page that it would
// wait for may be one that its own device has to write first.

// Program is where this program is in memory.
type Program struct {
	code, constants mapping
	serving, other  []mapping // of code: what a server may need while it serves, and the rest
}

// LockMemory keeps in memory what the server has used once, from now on, and
// the program's code that serves devices, used or not. Large mappings that Go
// does not use stay without memory (MCL_ONFAULT in mlock2(2), Linux 4.4). It
// needs CAP_IPC_LOCK.
func LockMemory() (*Program, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, fmt.Errorf("find the program's code: %w", err)
	}
	defer func() { _ = maps.Close() }()
	p := &Program{}
	if p.code, p.constants, err = findCode(maps); err != nil {
		return nil, err
	}
	p.serving, p.other = splitCode(p.code, uintptr(os.Getpagesize()), functionAt)
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return nil, fmt.Errorf("lock memory: %w", err)
	}
	for _, m := range p.serving {
		err := m.advise(unix.MADV_POPULATE_READ)
		if err != nil && !errors.Is(err, unix.EINVAL) { // before Linux 5.14
			return nil, fmt.Errorf("read the program's code: %w", err)
		}
	}
	return p, nil
}

// GiveBack gives back what of the program only its start has used. Constants
// that are used again come back, and stay then (MADV_DONTNEED_LOCKED in
// madvise(2), Linux 5.18, before which all stays).
func (p *Program) GiveBack() {
	if p == nil {
		return
	}
	for _, m := range append(p.other, p.constants) {
		_ = m.advise(unix.MADV_DONTNEED_LOCKED)
	}
}

// mapping is a part of this process's memory.
type mapping struct{ start, end uintptr }

// advise is madvise(2).
func (m mapping) advise(advice uintptr) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, advice); errno != 0 {
		return errno
	}
	return nil
}

// findCode returns where the first mapping that can be executed is, which in a
// static program is its code, and the next, its constants (proc_pid_maps(5)).
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

// notServing are the packages, and those below them, that only commands and
// requests at the socket of serve need: half of the program.
var notServing = []string{
	"net", "mime", "vendor", "html", "regexp", "text", "compress", "math/big", "encoding/asn1", "encoding/pem",
	"crypto/tls", "crypto/x509", "crypto/ecdsa", "crypto/ecdh", "crypto/elliptic", "crypto/hpke", "crypto/rsa", "crypto/dsa",
	"crypto/internal/fips140/bigmod", "crypto/internal/fips140/edwards25519", "crypto/internal/fips140/mlkem",
	"crypto/internal/fips140/nistec", "crypto/internal/fips140/rsa", "crypto/internal/fips140/tls12", "crypto/internal/fips140/tls13",
	"github.com/spf13", "github.com/BurntSushi", "golang.org/x/crypto/argon2", "golang.org/x/crypto/blake2b", "github.com/ublk-loop/ublk-loop/transfer/luks",
	"github.com/ublk-loop/ublk-loop/client", "github.com/ublk-loop/ublk-loop/internal/control", "github.com/ublk-loop/ublk-loop/internal/keysource",
	"github.com/ublk-loop/ublk-loop/internal/oci",
	"github.com/ublk-loop/ublk-loop/internal/top", "github.com/ublk-loop/ublk-loop/internal/wire",
}

// isServing reports whether a function is one that a server may need while it
// serves. Functions without a package are the runtime's.
func isServing(function string) bool {
	for _, p := range notServing {
		rest, found := strings.CutPrefix(function, p)
		if found && rest != "" && (rest[0] == '/' || rest[0] == '.') {
			return false
		}
	}
	return true
}

// functionAt returns the name of the function that an address is in, "" for
// none.
func functionAt(pc uintptr) string {
	f := runtime.FuncForPC(pc)
	if f == nil {
		return ""
	}
	// At its entry it is itself, elsewhere what it has inlined there.
	return runtime.FuncForPC(f.Entry()).Name()
}

// splitCode tells the pages of code with functions that a server may need while
// it serves from the others. The linker puts those of a package side by side, so
// the ends of a page tell. The first function of the next page stands for the last
// of this one: to find a function takes a microsecond.
func splitCode(code mapping, page uintptr, function func(uintptr) string) (serving, other []mapping) {
	serves := isServing(function(code.start))
	for start := code.start; start < code.end; start += page {
		next := isServing(function(start + page))
		list := &other
		if serves || next {
			list = &serving
		}
		serves = next
		if n := len(*list); n > 0 && (*list)[n-1].end == start {
			(*list)[n-1].end += page
			continue
		}
		*list = append(*list, mapping{start, start + page})
	}
	return serving, other
}

// gcLimit is how much memory, in bytes, a server may have before Go collects
// garbage: far more than it uses, since no request makes any.
const gcLimit = 128 << 20

// QuietGC ends garbage collection, which Go would otherwise do every two
// minutes though there is no garbage.
func QuietGC() {
	debug.FreeOSMemory() // what setting up took
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(gcLimit)
}
