package xts

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkOpenSSL compares Encrypt with "openssl speed" for the same cipher
// and sector size on this machine. x-openssl is how many times as fast Encrypt
// is. The benchmark measures both sides in turn, for a second each, and takes
// the medians of five rounds. So neither a single disturbance nor a change of
// the clock rate decides the result.
func BenchmarkOpenSSL(b *testing.B) {
	if _, err := exec.LookPath("openssl"); err != nil {
		b.Skipf("no openssl to compare with: %v", err)
	}
	for impl := aesni; impl <= armv8; impl++ {
		b.Run(impl.String(), func(b *testing.B) {
			skipMissing(b, impl)
			c := newBenchmark(b, impl, 64)
			for _, w := range workloads {
				b.Run(w.String(), func(b *testing.B) { w.compare(b, c) })
			}
		})
	}
}

func (w workload) compare(b *testing.B, c *Cipher) {
	for b.Loop() {
		var ours, theirs []float64
		for range 5 {
			theirs = append(theirs, opensslSpeed(b, w.sector))
			ours = append(ours, w.speed(c))
		}
		slices.Sort(ours)
		slices.Sort(theirs)
		b.ReportMetric(ours[2]/1e9, "GB/s")
		b.ReportMetric(theirs[2]/1e9, "openssl-GB/s")
		b.ReportMetric(ours[2]/theirs[2], "x-openssl")
		b.ReportMetric(0, "ns/op")
	}
}

// speed returns how many bytes a second Encrypt processes, measured for about 1
// s.
func (w workload) speed(c *Cipher) float64 {
	buf := aligned(w.buf)
	rounds, start := 0, time.Now()
	for time.Since(start) < time.Second {
		for range 1 << 20 / w.buf {
			c.Encrypt(buf, w.sector, 1, 1)
		}
		rounds++
	}
	return float64(rounds) * (1 << 20) / time.Since(start).Seconds()
}

// opensslSpeed returns how many bytes a second openssl processes, measured for
// 1 s. The last line of openssl's output has the cipher's name and thousands of
// bytes as 1234.56k.
func opensslSpeed(b *testing.B, sector int) float64 {
	b.Helper()
	out, err := exec.Command("openssl", "speed", "-elapsed", "-seconds", "1",
		"-bytes", fmt.Sprint(sector), "-evp", "aes-256-xts").Output()
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
