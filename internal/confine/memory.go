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

// This file keeps a server from waiting for memory. The kernel may free memory by writing
// a page to the server's own device, so that the server would wait for itself.

// Program records the places of this program in memory.
type Program struct {
	code, constants mapping
	serving, other  []mapping // parts of code: serving may run while the server serves, other does not
}

// LockMemory locks the pages that the server has used or will use, and the part of the
// program's code that serves devices, used or not. Large mappings that Go does not use
// get no memory (MCL_ONFAULT in mlock2(2), Linux 4.4). It needs CAP_IPC_LOCK.
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

// GiveBack frees the pages of the program that only its start has used. Constants that
// are used again become resident and locked again (MADV_DONTNEED_LOCKED in madvise(2),
// Linux 5.18). Older kernels keep all pages.
func (p *Program) GiveBack() {
	if p == nil {
		return
	}
	for _, m := range append(p.other, p.constants) {
		_ = m.advise(unix.MADV_DONTNEED_LOCKED)
	}
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
	"github.com/spf13", "github.com/BurntSushi", "golang.org/x/crypto/argon2", "golang.org/x/crypto/blake2b", "github.com/ublk-loop/ublk-loop/transfer/luks",
	"github.com/ublk-loop/ublk-loop/client", "github.com/ublk-loop/ublk-loop/internal/control", "github.com/ublk-loop/ublk-loop/internal/keysource",
	"github.com/ublk-loop/ublk-loop/internal/oci",
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

// splitCode splits code into the pages with functions that a server may call while it
// serves, and the other pages. The linker places the functions of a package next to each
// other, so that both ends of a page are enough to tell. The first function of the next
// page stands for the last function of this page. It takes a microsecond to find a
// function.
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
