package xts

import (
	"fmt"
	"testing"
)

// workload holds the arguments of one call: the size of the buffer and of its
// sectors, in bytes.
type workload struct{ buf, sector int }

var workloads = []workload{{512, 512}, {4096, 4096}, {64 << 10, 512}, {64 << 10, 4096}}

func (w workload) String() string {
	return fmt.Sprintf("%dx%d", w.buf/w.sector, w.sector)
}

func newBenchmark(b *testing.B, impl implementation, keySize int) *Cipher {
	b.Helper()
	c, err := newCipher(impl, aligned(ScheduleSize), newSource(b).bytes(keySize))
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// BenchmarkXTS has sub-benchmarks named implementation/key/direction/sectors.
func BenchmarkXTS(b *testing.B) {
	for impl := generic; impl <= armv8; impl++ {
		b.Run(impl.String(), func(b *testing.B) {
			skipMissing(b, impl)
			for _, keySize := range []int{32, 64} {
				c := newBenchmark(b, impl, keySize)
				for _, w := range workloads {
					b.Run(fmt.Sprintf("aes-%d/encrypt/%v", keySize*4, w), func(b *testing.B) { w.run(b, c.Encrypt) })
					b.Run(fmt.Sprintf("aes-%d/decrypt/%v", keySize*4, w), func(b *testing.B) { w.run(b, c.Decrypt) })
				}
			}
		})
	}
}

func (w workload) run(b *testing.B, crypt func(buf []byte, sectorSize int, iv, step uint64)) {
	buf := aligned(w.buf)
	b.SetBytes(int64(w.buf))
	for b.Loop() {
		crypt(buf, w.sector, 1, 1)
	}
}

func BenchmarkNew(b *testing.B) {
	mem, key := aligned(ScheduleSize), newSource(b).bytes(64)
	for b.Loop() {
		if _, err := New(mem, key); err != nil {
			b.Fatal(err)
		}
	}
}
