package xts

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

// Test every number of blocks that leaves each possible rest after the kernels'
// strides.
func TestSectorSizes(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for _, keySize := range []int{32, 64} {
			for size := 16; size <= 4096; size += 16 {
				p := newPair(t, impl, src.bytes(keySize))
				p.check(t, src, sectors{size, 1, src.Uint64(), src.Uint64()}, size/16%64)
			}
		}
	})
}

// Test every number of sectors around the size of a batch.
func TestSectorCounts(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for _, keySize := range []int{32, 64} {
			for _, size := range []int{16, 208, 512, 1024, 2048, 4096} {
				for count := range 18 {
					for _, step := range []uint64{0, 1, 8, src.Uint64()} {
						p := newPair(t, impl, src.bytes(keySize))
						p.check(t, src, sectors{size, count, src.Uint64(), step}, 0)
					}
				}
			}
		}
	})
}

func TestAlignments(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for _, size := range []int{16, 48, 496, 512, 528, 4096} {
			for offset := range 64 {
				p := newPair(t, impl, src.bytes(64))
				p.check(t, src, sectors{size, 3, src.Uint64(), 1}, offset)
			}
		}
	})
}

// The iv wraps around within a batch, at the start of a batch, and between two
// batches. Its carry does not reach the upper half of the tweak.
func TestIVWrapsAround(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for _, step := range []uint64{1, 8, 1 << 63, math.MaxUint64} {
			for back := range uint64(18) {
				p := newPair(t, impl, src.bytes(64))
				p.check(t, src, sectors{512, 17, -back * step, step}, 0)
			}
		}
	})
}

// The memory for round keys may begin at any address, and bytes beyond it are
// not written.
func TestScheduleAlignments(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for offset := range 64 {
			p := newPair(t, impl, src.bytes(64))
			key := src.bytes(64)
			mem := aligned(ScheduleSize + 64)
			_, _ = src.Read(mem)
			before := bytes.Clone(mem)
			c, err := newCipher(impl, mem[offset:], key)
			if err != nil {
				t.Fatal(err)
			}
			p.Cipher, p.reference = c, newPair(t, impl, key).reference
			p.check(t, src, sectors{512, 9, src.Uint64(), 1}, 0)
			copy(before[offset:], mem[offset:offset+ScheduleSize])
			if i := difference(mem, before); i >= 0 {
				t.Fatalf("offset %d: byte %d of the memory around the schedule has changed", offset, i)
			}
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		p := newPair(t, impl, newSource(t).bytes(64))
		const calls = 200
		var users sync.WaitGroup
		for user := range uint64(8) {
			users.Go(func() { // ends after its loops; users.Wait waits for it
				got := bytes.Repeat([]byte{byte(user)}, 20*512)
				want := bytes.Clone(got)
				for i := range uint64(calls) {
					p.Encrypt(got, 512, user<<32|i, 1)
				}
				for i := uint64(calls); i > 0; i-- {
					p.Decrypt(got, 512, user<<32|(i-1), 1)
				}
				p.Encrypt(got, 512, user, 1)
				p.encryptReference(want, 512, user, 1)
				if !bytes.Equal(got, want) {
					t.Errorf("user %d: differs from the reference after %d calls beside others", user, 2*calls)
				}
			})
		}
		users.Wait()
	})
}

// x/crypto takes its tweaks from a sync.Pool, which the collector and -race empty.
func TestNothingIsAllocated(t *testing.T) {
	forOwnImplementations(t, func(t *testing.T, impl implementation) {
		p := newPair(t, impl, newSource(t).bytes(64))
		buf := make([]byte, 32<<10)
		allocations := testing.AllocsPerRun(100, func() {
			p.Encrypt(buf, 512, 1, 1)
			p.Decrypt(buf, 4096, 1, 8)
		})
		if allocations != 0 {
			t.Errorf("%v allocations", allocations)
		}
	})
}

func TestKeyErrors(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		src := newSource(t)
		for n := range 130 {
			_, err := newCipher(impl, make([]byte, ScheduleSize), src.bytes(n))
			if good := n == 32 || n == 64; good != (err == nil) || good == errors.Is(err, ErrKeySize) {
				t.Errorf("key of %d bytes: %v", n, err)
			}
		}
		for _, half := range []int{16, 32} {
			key := src.bytes(half)
			key = append(key, key...)
			if _, err := newCipher(impl, make([]byte, ScheduleSize), key); !errors.Is(err, ErrEqualHalves) {
				t.Errorf("two equal halves of %d bytes: %v", half, err)
			}
			key[len(key)-1] ^= 1
			if _, err := newCipher(impl, make([]byte, ScheduleSize), key); err != nil {
				t.Errorf("two halves of %d bytes that differ in a bit: %v", half, err)
			}
		}
	})
}

func TestWipe(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		mem := newSource(t).bytes(ScheduleSize)
		c, err := newCipher(impl, mem, newSource(t).bytes(32))
		if err != nil {
			t.Fatal(err)
		}
		if used := strings.Trim(fmt.Sprintf("%x", mem), "0") != ""; used != (impl != generic) {
			t.Errorf("round keys in the caller's memory: %v", used)
		}
		c.Wipe()
		if left := strings.Trim(fmt.Sprintf("%x", mem), "0"); left != "" {
			t.Errorf("left after Wipe: %s", left)
		}
		c.Wipe()
	})
}

func TestPanics(t *testing.T) {
	forEachImplementation(t, func(t *testing.T, impl implementation) {
		p := newPair(t, impl, newSource(t).bytes(64))
		wiped := newPair(t, impl, newSource(t).bytes(64))
		wiped.Wipe()
		for want, cases := range map[string][]func(){
			"sector size of 0 bytes":           {func() { p.Encrypt(make([]byte, 512), 0, 0, 1) }, func() { p.Decrypt(nil, 0, 0, 1) }},
			"sector size of -512 bytes":        {func() { p.Encrypt(make([]byte, 512), -512, 0, 1) }, func() { p.Decrypt(nil, -512, 0, 1) }},
			"sector size of 520 bytes":         {func() { p.Encrypt(make([]byte, 520), 520, 0, 1) }, func() { p.Decrypt(nil, 520, 0, 1) }},
			"sector size of 16777232 bytes":    {func() { p.Encrypt(nil, 1<<24+16, 0, 1) }, func() { p.Decrypt(nil, 1<<24+16, 0, 1) }},
			"1000 bytes is not a whole number": {func() { p.Encrypt(make([]byte, 1000), 512, 0, 1) }, func() { p.Decrypt(make([]byte, 1000), 512, 0, 1) }},
			"used before New or after Wipe":    {func() { wiped.Encrypt(nil, 512, 0, 1) }, func() { new(Cipher).Decrypt(nil, 512, 0, 1) }},
			fmt.Sprint("719 bytes of memory for round keys, ScheduleSize is ", ScheduleSize): {func() { _, _ = newCipher(impl, make([]byte, 719), newSource(t).bytes(32)) }},
			"0 bytes of memory for round keys, Schedu":                                       {func() { _, _ = newCipher(impl, nil, newSource(t).bytes(64)) }},
		} {
			for i, run := range cases {
				if got := panicOf(run); !strings.Contains(got, want) {
					t.Errorf("case %d: panic %q, want %q", i, got, want)
				}
			}
		}
	})
}

func panicOf(run func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	run()
	return ""
}

// New chooses the best implementation that this machine has.
func TestImplementation(t *testing.T) {
	c, err := New(make([]byte, ScheduleSize), newSource(t).bytes(64))
	if err != nil {
		t.Fatal(err)
	}
	if c.impl.String() != Implementation() || missing(c.impl) != "" {
		t.Errorf("New uses %v, which lacks %q; Implementation says %s", c.impl, missing(c.impl), Implementation())
	}
	for better := c.impl + 1; better <= armv8; better++ {
		if missing(better) == "" {
			t.Errorf("New uses %v, though there is %v", c.impl, better)
		}
	}
	t.Logf("New uses %v", c.impl)
}
