package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// A further device with a store takes at most this user memory in KiB beside its index, with queues of depth 32.
const (
	storeKiB      = 60
	storeQueueKiB = 45 // for each queue
)

// crowd attaches devices to a server.
type crowd struct {
	b    *bed
	m    *many
	base string
	made int // stores
}

// Two hundred devices with stores over one base, in one server, take little memory each. The time
// of an attach is only printed, because make bench measures it.
func TestKernelStoreDensity(t *testing.T) {
	b := kernelBed(t, ublktest.Plain)
	const baseBytes, few, all = 256 << 20, 50, 200
	c := &crowd{b: b, m: b.serve(), base: b.fileOn(b.loopDisk("", b.image(512<<20)))}
	if err := os.Truncate(c.base, baseBytes); err != nil {
		t.Fatal(err)
	}
	plain := c.attach(few, c.plain)
	b.ok("del", "--all")
	c.attach(few, c.withStore)
	c.m.isIdle()
	before, kernel, threads := c.m.memory(), kernelMemory(t), c.m.threads()
	attach := c.attach(all-few, c.withStore)
	c.m.isIdle()
	const index = baseBytes / cowfile.DefaultChunkSize * 4 >> 10
	each := (c.m.memory()-before)/(all-few) - index
	t.Logf("%d KiB beside an index of %d KiB, %d KiB of the kernel's, and %.2f threads a device", each, index,
		(kernelMemory(t)-kernel)/(all-few), float64(c.m.threads()-threads)/(all-few))
	device := b.list("0")[0]
	copies, most := device.BufferMode == "copy", storeKiB+storeQueueKiB*device.Queues // the driver makes no more queues than CPUs
	if ublktest.CheckAbility(t, ublktest.ZeroCopy, !copies); !copies && each > most {
		t.Errorf("a device takes %d KiB, more than %d", each, most)
	}
	t.Logf("CPU time of ten attaches %v, without stores %v", attach, plain)
	c.writeFirst(24)
	b.ok("del", "--all")
}

// writeFirst makes first writes to the last n devices at once, more than their threads have buffers
// for. Each device has its own data afterwards.
func (c *crowd) writeFirst(n int) {
	c.b.Helper()
	devices := c.b.list()
	devices = devices[len(devices)-n:]
	const writers, each = 4, 3
	block := func(device, writer, i int) (number int64, value byte) {
		return int64(((writer*each+i)*7 + device) * 16), byte(1 + device + 50*i + writer)
	}
	var wait sync.WaitGroup
	for d := range devices {
		for w := range writers {
			wait.Go(func() {
				for i := range each {
					number, value := block(d, w, i)
					c.b.writeBlock(devices[d], number+int64(w), value)
				}
			})
		}
	}
	ended := make(chan struct{})
	go func() { // ends with the writes, or with the process
		wait.Wait()
		close(ended)
	}()
	ublktest.Receive(c.b, time.Minute, "the end of first writes", ended)
	for d := range devices {
		for w := range writers {
			for i := range each {
				number, value := block(d, w, i)
				c.b.hasBlock(devices[d], number+int64(w), value)
				c.b.hasBlock(devices[d], number+int64(w)+1, 0)
			}
		}
	}
}

func (c *crowd) plain() client.AddRequest {
	return client.AddRequest{File: c.base, Config: client.Config{ReadOnly: true}}
}

func (c *crowd) withStore() client.AddRequest {
	c.b.Helper()
	c.made++
	text, err := cowfile.Table(cowfile.TableOptions{Origin: c.base, Path: filepath.Join(filepath.Dir(c.base), fmt.Sprint("store", c.made))})
	if err != nil {
		c.b.Fatal(err)
	}
	return client.AddRequest{Table: text}
}

// attach attaches n devices, and returns the least CPU time that the server has used for ten.
func (c *crowd) attach(n int, request func() client.AddRequest) time.Duration {
	c.b.Helper()
	cl := client.New(client.DefaultSocket)
	var times []time.Duration
	start := c.m.cpuTime()
	for i := range n {
		r := request()
		r.Config.Queues, r.Config.Depth = 2, 32
		lease, err := cl.Add(context.Background(), r, client.Files{})
		if err != nil {
			c.b.Fatal(err)
		}
		if err := lease.Keep(context.Background(), 0); err != nil {
			c.b.Fatal(err)
		}
		lease.Close()
		if i%10 == 9 {
			times = append(times, c.m.cpuTime()-start)
			start = c.m.cpuTime()
		}
	}
	return slices.Min(times)
}
