package verity

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// BenchmarkOpenSSL compares the parts of this package with "openssl speed" for
// the same hash and block size on this machine; x-openssl is how many times as
// fast the part is. Both sides count the time of the processor, so that other
// programs disturb them little. The benchmark measures the sides in turn and takes
// the medians of five rounds.
func BenchmarkOpenSSL(b *testing.B) {
	if _, err := exec.LookPath("openssl"); err != nil {
		b.Skipf("no openssl to compare with: %v", err)
	}
	for _, a := range algorithms {
		for _, size := range []uint32{4096, 65536} {
			p := params(a.name, size, 4096, 1<<20/uint64(size)) // fits into the cache, as what openssl hashes
			p.Salt = make([]byte, 32)                           // as long as veritysetup's
			m := newImage(b, p)
			for _, part := range []struct {
				name string
				run  func() error
			}{{"Hash", m.hashHot}, {"Build", m.build}, {"Verify", m.verifyQuietly}, {"Verifier", m.verifyBlocks(b)}} {
				b.Run(fmt.Sprintf("%s/%d/%s", a.name, size, part.name), func(b *testing.B) {
					compare(b, a.name, int(size), len(m.data), part.run)
				})
			}
		}
	}
}

// hashHot computes the digest of one block, again and again as openssl does.
func (m *image) hashHot() error {
	h := m.newHasher()
	for range m.params.DataBlocks {
		h.digest(m.dataBlock(0))
	}
	return nil
}

func (m *image) build() error {
	_, err := m.Build(bytes.NewReader(m.data), &m.hash)
	return err
}

func (m *image) verifyQuietly() error {
	return m.Verify(bytes.NewReader(m.data), bytes.NewReader(m.hash), m.root, func(bad Bad) bool { panic(bad.String()) })
}

// verifyBlocks returns a function that checks every data block as a device does,
// with hash blocks that are remembered.
func (m *image) verifyBlocks(b *testing.B) func() error {
	v := m.newVerifier(b, int(m.HashBlocks()))
	return func() error {
		for block := range m.params.DataBlocks {
			if !m.readable(v, block) {
				b.Fatal(block)
			}
		}
		return nil
	}
}

func compare(b *testing.B, hash string, block, size int, run func() error) {
	for b.Loop() {
		var ours, theirs []float64
		for range 5 {
			theirs = append(theirs, opensslSpeed(b, hash, block))
			ours = append(ours, speed(b, size, run))
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		b.ReportMetric(ours[2]/1e9, "GB/s")
		b.ReportMetric(theirs[2]/1e9, "openssl-GB/s")
		b.ReportMetric(ours[2]/theirs[2], "x-openssl")
		b.ReportMetric(0, "ns/op")
	}
}

// speed returns how many bytes run processes in a second of the processor,
// measured for about 1 s.
func speed(b *testing.B, size int, run func() error) float64 {
	rounds, start, began := 0, time.Now(), processorTime(b)
	for time.Since(start) < time.Second {
		if err := run(); err != nil {
			b.Fatal(err)
		}
		rounds++
	}
	return float64(rounds*size) / (processorTime(b) - began).Seconds()
}

// processorTime returns how long this process has run in user space, which is
// what openssl counts.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano())
}

// opensslSpeed returns how many bytes openssl hashes in a second of the processor.
// The last line of its output ends with thousands of bytes as 1234.56k.
func opensslSpeed(b *testing.B, hash string, block int) float64 {
	b.Helper()
	out, err := exec.Command("openssl", "speed", "-seconds", "1", "-bytes", fmt.Sprint(block), "-evp", hash).Output()
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(out))
	thousands, err := strconv.ParseFloat(strings.TrimSuffix(fields[len(fields)-1], "k"), 64)
	if err != nil {
		b.Fatalf("openssl speed: %v in %q", err, out)
	}
	return thousands * 1000
}
