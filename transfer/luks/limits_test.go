package luks

import (
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// tryUnlock unlocks with a passphrase that is correct for one of the keyslots.
func (m image) tryUnlock(t *testing.T, passphrase string, limits Limits) error {
	t.Helper()
	h, v := m.mustRead(t)
	return h.Unlock(m, []byte(passphrase), limits, make([]byte, v.KeySize))
}

// A keyslot above any limit is refused at once.
func TestLimitsAgainstHostileCosts(t *testing.T) {
	const most = uint64(math.MaxUint64)
	tests := []struct {
		what   string
		change func(node)
	}{
		{"of memory", kdf0("memory", most)},
		{"argon2id takes 4096 MiB of memory, 4096 MiB are allowed", kdf0("memory", uint64(4<<20+1))},
		{"of memory", kdf0("memory", uint64(1<<32+1024))}, // 1 MiB if truncated to 32 bits
		{"5 cpus", kdf0("cpus", 5)},
		{"258 cpus", func(r node) { kdf0("cpus", 258)(r); kdf0("memory", 64<<10)(r) }}, // 2 if truncated to 8 bits
		{"passes", kdf0("time", most)},
		{"passes", kdf0("time", uint64(1<<32+4))},
		{"passes", func(r node) { kdf0("time", 4097)(r); kdf0("memory", 64<<10)(r) }},
		{"passes", func(r node) { kdf0("time", 65)(r); kdf0("memory", 4<<20)(r) }},
		{"iterations", digest0("iterations", most)},
		{"iterations", digest0("iterations", uint64(1<<32+1000))},
		{"iterations", digest0("iterations", 1<<30+1)},
	}
	start := ublktest.ProcessorTime(t)
	for _, test := range tests {
		err := luks2(t).edit(t, test.change).tryUnlock(t, first, Limits{})
		expectErr(t, err, ErrLimit)
		if err != nil && (!strings.Contains(err.Error(), test.what) || !strings.Contains(err.Error(), "keyslot 0")) {
			t.Errorf("%q does not tell of %q", err, test.what)
		}
	}
	// No limits allow values that exceed the argument types of argon2 and
	// pbkdf2.
	endless := Limits{Argon2Work: most, PBKDF2Work: most}
	for _, change := range []func(node){kdf0("time", uint64(1<<32+4)), digest0("iterations", uint64(1<<31))} {
		err := luks2(t).edit(t, change).tryUnlock(t, first, endless)
		expectErr(t, err, ErrLimit)
	}
	m := luks1Short(t).clone()
	copy(m.data[208+48+4:], "\xff\xff\xff\xff")
	expectErr(t, m.tryUnlock(t, second, Limits{}), ErrLimit)
	if took := ublktest.ProcessorTime(t) - start; took > 10*time.Second {
		t.Errorf("refusing took %v", took)
	}
}

// Each limit allows a cost equal to it and refuses a higher cost.
func TestLimitsAreExact(t *testing.T) {
	const (
		memory = 1 << 20        // memory of the fixture
		work   = 4 * memory     // 4 passes over it
		digest = 1000           // iterations of its digest, one block
		derive = 1000 * (1 + 1) // luks1Short: one block for the 32-byte key and one for the digest
	)
	for _, test := range []struct {
		image      image
		passphrase string
		limits     Limits
		want       error
	}{
		{luks2(t), first, Limits{Memory: memory}, nil},
		{luks2(t), first, Limits{Memory: memory - 1}, ErrLimit},
		{luks2(t), first, Limits{Argon2Work: work}, nil},
		{luks2(t), first, Limits{Argon2Work: work - 1}, ErrLimit},
		{luks2(t), first, Limits{PBKDF2Work: digest}, nil},
		{luks2(t), first, Limits{PBKDF2Work: digest - 1}, ErrLimit},
		{luks1Short(t), second, Limits{PBKDF2Work: derive}, nil},
		{luks1Short(t), second, Limits{PBKDF2Work: derive - 1}, ErrLimit},
	} {
		if err := test.image.tryUnlock(t, test.passphrase, test.limits); test.want == nil && err != nil {
			t.Errorf("%+v: %v", test.limits, err)
		} else {
			expectErr(t, err, test.want)
		}
	}
}

// The work limit applies to all keyslots together. If it leaves no work for a
// keyslot, the error still reports that others were tried.
func TestLimitsCoverAllKeyslots(t *testing.T) {
	m := luks2Large(t).edit(t, func(r node) {
		r.at("keyslots", "1")["kdf"] = r.at("keyslots", "2", "kdf")
	})
	h, _ := m.mustRead(t)
	digest := h.slots[0].digest.iterations
	both := 2 * (1000 + digest)
	if err := m.tryUnlock(t, third, Limits{PBKDF2Work: both}); err != nil {
		t.Error(err)
	}
	err := m.tryUnlock(t, third, Limits{PBKDF2Work: both - 1})
	expectErr(t, err, ErrLimit)
	expectErr(t, err, ErrWrongPassphrase)
	if err != nil && !strings.Contains(err.Error(), "keyslot 2") {
		t.Errorf("%q does not name keyslot 2", err)
	}
}

// Work that overflows 64 bits exceeds the limit.
func TestSpendOverflow(t *testing.T) {
	for _, factors := range [][]uint64{{1 << 40, 1 << 40}, {1 << 32, 1 << 32, 7}, {1<<63 + 1, 2}} {
		left := uint64(math.MaxUint64)
		expectErr(t, spend(&left, "this", factors...), ErrLimit)
		if left != math.MaxUint64 {
			t.Errorf("%v: %d are left", factors, left)
		}
	}
}

// The number of output blocks counts: 64 bytes are two blocks of sha256.
func TestLimitsCountBlocks(t *testing.T) {
	p := pbkdf2Params{hash: hashes["sha256"], iterations: 1000}
	for size, want := range map[int]uint64{32: 1000, 33: 2000, 64: 2000, 20: 1000} {
		limits := Limits{PBKDF2Work: 5000}
		if err := p.spend(&limits, size); err != nil || 5000-limits.PBKDF2Work != want {
			t.Errorf("%d bytes: %d, %v; want %d", size, 5000-limits.PBKDF2Work, err, want)
		}
	}
}

// argon2's memory has been returned to the kernel when Unlock returns.
func TestUnlockGivesMemoryBack(t *testing.T) {
	m := luks2(t).edit(t, kdf0("memory", 64<<10)) // in KiB
	// Another cost derives another key.
	expectErr(t, m.tryUnlock(t, first, Limits{}), ErrWrongPassphrase)
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	if kept := stats.HeapSys - stats.HeapReleased; kept > 48<<20 {
		t.Errorf("%d MiB of heap are left", kept>>20)
	}
}

// The limits allow cryptsetup's largest costs.
func TestLimitsAllowCryptsetup(t *testing.T) {
	for _, p := range []argon2Params{
		{kind: "argon2id", passes: 64, memory: 4 << 20, cpus: 4},
		{kind: "argon2id", passes: 30, memory: 1 << 20, cpus: 4},
	} {
		limits := Limits{}.filled()
		if err := p.spend(&limits, 64); err != nil {
			t.Error(err)
		}
	}
	limits := Limits{Memory: 1 << 60}.filled()
	if limits.Memory != maxArgon2Memory {
		t.Errorf("memory %d", limits.Memory)
	}
}
