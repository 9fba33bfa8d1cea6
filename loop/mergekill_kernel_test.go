package loop

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mergeEnv makes a server of serveTableEnv merge its device, and end.
const mergeEnv = "UBLK_LOOP_TEST_MERGE"

// mergedText is what such a server prints in the end.
const mergedText = "merged"

func mergeAndSay(dev *Device) error {
	_, err := dev.Merge(context.Background())
	if err == nil {
		_, err = fmt.Println(mergedText)
	}
	return err
}

// A server is killed after each write and flush of a merge. This server, cow merge and the kernel
// finish the merge.
func TestKernelMergeKilledAtEachStep(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestAndNewest, ublktest.Soak)
	run(t, "modprobe", "dm_snapshot")
	b := newMergeBed(t, ctl, 16384)
	t.Run("write", func(t *testing.T) { b.fill(t) })
	want, exceptions := b.shown(t, b.before[0], b.before[1])
	if size := exceptions * 16384; size <= 8<<20 {
		t.Fatalf("%d bytes are merged in one hold", size)
	}
	steps := b.mergeKilled(t, 0)
	if base := b.disks[0].now(); !bytes.Equal(base, want) {
		t.Fatalf("the base has other data: %s", firstDifference(base, want))
	}
	every := max(1, steps/ublktest.Kills(t, 8, steps))
	for i, step := 0, 1+rand.IntN(every); step <= steps; i, step = i+1, step+every {
		b.mergeKilled(t, step)
		left := [][]byte{b.disks[0].now(), b.disks[1].now()}
		if image, _ := b.shown(t, left[0], left[1]); !bytes.Equal(image, want) {
			t.Errorf("step %d of %d: base and store show something else: %s", step, steps, firstDifference(image, want))
		}
		for way := range mergeEnds {
			if testing.Short() && way != i%len(mergeEnds) {
				continue
			}
			b.restore(nil, b.disks, left)
			if base := b.finish(t, way); !bytes.Equal(base, want) {
				t.Errorf("step %d of %d: the base has other data: %s", step, steps, firstDifference(base, want))
			}
		}
	}
	t.Logf("%d steps, killed at every %dth", steps, every)
}

// fill writes to most chunks of a device, and ends the device.
func (b *mergeBed) fill(t *testing.T) {
	t.Helper()
	dev := attachTable(t, b.ctl, b.text, Config{})
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 64<<10)
	for at := 0; at < mergeSectors; at += 128 {
		if at%2048 == 1024 {
			continue
		}
		if _, err := f.WriteAt(stamp(mem[:512*min(128, mergeSectors-at)], at, 1), int64(at)*512); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	b.keep()
}

// mergeKilled restores the disks, lets a server merge them, and kills it after a step. If step is 0,
// the server merges everything. mergeKilled returns the number of steps.
func (b *mergeBed) mergeKilled(t *testing.T, step int) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveTableEnv+"="+b.text, mergeEnv+"=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	b.restore(func(n int) {
		if n == step {
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
		}
	}, b.disks, b.before)
	b.mu.Lock() // the disks wait until cmd.Process is set
	err := cmd.Start()
	b.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	b.mu.Lock()
	steps := len(b.steps)
	b.mu.Unlock()
	killed, want := cmd.ProcessState.ExitCode() == -1, 0 < step && step <= steps
	var id uint32
	if _, scanErr := fmt.Sscanf(out.String(), "device %d", &id); scanErr != nil {
		t.Fatalf("the server made no device: %v", err)
	}
	if killed != want || !killed && !strings.Contains(out.String(), mergedText) {
		t.Fatalf("step %d: %v, output %q", step, err, &out)
	}
	if killed {
		if err := Detach(b.ctl, id, DetachOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return steps
}
