package e2e

import (
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// This test measures the time that a root from an image adds to the start of a container.
// It compares the start with that of a bundle without an image, and with the kernel's
// loop device in a namespace that a shell makes. The runtime is a program that does
// nothing, so that only the time before it counts. The three take turns, so that other
// load on the machine affects all of them.
func TestKernelOCIStartTime(t *testing.T) {
	w := kernelBed(t, ublktest.CPUs, ublktest.Plain, ublktest.Once, ublktest.Long).wrap("exit 0") // each device goes while the next one comes
	image := w.imageOf("ext4", rootTree(w, "x"))
	with, without := w.bundle(asked{"image": image}, "true"), w.bundle(nil, "true")
	place := t.TempDir()
	w.tool("modprobe", "loop")
	create := func(bundle string) func() {
		return func() {
			if r := w.calls("create", "--bundle", bundle, "c"); r.status != 0 {
				t.Errorf("create: exit status %d: %s", r.status, r.err)
			}
		}
	}
	ways := []func(){
		create(with),
		create(without),
		func() {
			cmd := exec.Command("unshare", "-m", "sh", "-c", `mount -o loop,ro "$1" "$2" && exec sh -c "exit 0"`, "sh", image, place)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("loop: %v: %s", err, out)
			}
		},
	}
	for _, many := range []struct {
		name   string
		atOnce int
		rounds int
	}{{"alone", 1, 20}, {"20 at once", 20, 2}} {
		times := measure(ways, many.rounds, many.atOnce)
		add, bare, loop := times[0], times[1], times[2]
		w.report(many.name+", ublk-runc create, with an image", add)
		w.report(many.name+", ublk-runc create, without", bare)
		w.report(many.name+", unshare, mount -o loop", loop)
		// On an otherwise idle machine the time is 1.0 to 1.3 times that of the loop
		// device. Two emulated CPUs that share one favour the loop device, which needs no
		// other process.
		if limit := 3*median(loop) + median(bare); median(add) > limit {
			t.Errorf("%s: a start takes %s, more than %s", many.name, median(add), limit)
		}
	}
}

// This test measures the time from the end of the container's last process, which is
// killed, to the end of the device.
func TestKernelOCIEndTime(t *testing.T) {
	w := kernelBed(t, ublktest.Plain, ublktest.Once, ublktest.Waits).wrap("echo started; exec sleep 1000")
	bundle := w.bundle(asked{"image": w.imageOf("ext4", rootTree(w, "x"))}, "true")
	times := make([]time.Duration, 20)
	for i := range times {
		cmd := w.call("run", "--bundle", bundle, "c")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		// The server may have checked the device a few times already, so that its next
		// check is late.
		time.Sleep(time.Duration(i) * 50 * time.Millisecond)
		start := time.Now()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		waitUntil(t, "the device is gone", func() bool {
			paths, _ := filepath.Glob("/sys/block/ublkb*")
			return len(paths) == 0
		})
		times[i] = time.Since(start)
	}
	slices.Sort(times)
	w.report("from kill -9 to the device's end", times)
	if m, limit := median(times), time.Second+10*w.startTime(); m > limit {
		t.Errorf("a device goes after %s, more than %s", m, limit)
	}
}

// measure runs each function in turn for a number of rounds, atOnce of them in parallel.
// It returns the times of each function, shortest first.
func measure(ways []func(), rounds, atOnce int) [][]time.Duration {
	times := make([][]time.Duration, len(ways))
	for range rounds {
		for i, way := range ways {
			times[i] = append(times[i], measureAtOnce(way, atOnce)...)
		}
	}
	for _, t := range times {
		slices.Sort(t)
	}
	return times
}

// measureAtOnce returns the times of n parallel calls of a function.
func measureAtOnce(run func(), n int) []time.Duration {
	times := make([]time.Duration, n)
	var running sync.WaitGroup
	for i := range times {
		running.Go(func() {
			start := time.Now()
			run()
			times[i] = time.Since(start)
		})
	}
	running.Wait()
	return times
}

func median(sorted []time.Duration) time.Duration { return sorted[len(sorted)/2] }

// report logs the median and the 99th percentile, which is the longest of so few times.
func (w *wrapped) report(what string, sorted []time.Duration) {
	w.Helper()
	w.Logf("%s: median %s, p99 %s", what, median(sorted).Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
}
