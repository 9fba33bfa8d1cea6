package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// patience bounds an operation that takes seconds. On an emulated machine that shares its CPU with others,
// the first use of an encrypted volume takes more than a minute.
const patience = 4 * time.Minute

// bed is a test with a server of devices and a driver.
type bed struct {
	testing.TB
	ublk    *ublk.Control
	dir     string // the test's directory
	pool    string
	socket  string // of the driver
	control string // socket of the server
	client  *client.Client
	server  *process
	driver  *process
	conn    *grpc.ClientConn

	identity   csi.IdentityClient
	controller csi.ControllerClient
	node       csi.NodeClient

	processes []*process
}

// newBed starts a server of devices. At its end the test must have left no device and no
// mount.
func newBed(t testing.TB, needs ...ublktest.Need) *bed {
	t.Helper()
	b := &bed{TB: t, ublk: ublktest.Kernel(t, needs...), dir: t.TempDir()}
	b.pool, b.socket, b.control = filepath.Join(b.dir, "pool"), filepath.Join(b.dir, "csi.sock"), filepath.Join(b.dir, "control.sock")
	b.client = client.New(b.control)
	before := mountPoints(t)
	t.Cleanup(b.killAll) // runs after the cleanups below
	b.serve()
	t.Cleanup(func() {
		if t.Failed() {
			b.clear(before)
		}
		b.devicesAre(0)
		if now := mountPoints(t); !slices.Equal(now, before) {
			t.Errorf("mounts are %q, were %q", now, before)
		}
		b.server.end(unix.SIGTERM)
	})
	return b
}

// clear unmounts and removes what a failed test has left, so that the cleanups after it do not wait
// for that.
func (b *bed) clear(before []string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	devices, err := b.client.Devices(ctx)
	status, e := b.client.Status(ctx)
	if err = errors.Join(err, e); e == nil {
		for i := range status.Unrecovered { // I/O of these would not end
			devices = append(devices, status.Unrecovered[i].AsDevice())
		}
	}
	for i := range devices {
		err = errors.Join(err, b.client.Remove(ctx, &devices[i], true))
	}
	if b.driver != nil {
		b.driver.end(unix.SIGKILL) // a call of it may have waited for a device
	}
	left := mountPoints(b)
	slices.Reverse(left) // what is mounted below another mount comes first
	for _, path := range left {
		if !slices.Contains(before, path) {
			b.Logf("unmount %s: error %v", path, unix.Unmount(path, unix.MNT_DETACH))
		}
	}
	if err != nil {
		b.server.end(unix.SIGKILL)
	}
}

// serve starts the server of devices.
func (b *bed) serve() {
	b.Helper()
	b.server = b.run(os.Getenv("UBLK_LOOP_BIN"), "serve", "--socket", b.control)
	b.until("the server answers", func() bool {
		_, err := b.client.Status(context.Background())
		return err == nil
	})
}

// start starts the driver, and waits until it answers calls.
func (b *bed) start(args ...string) {
	b.Helper()
	b.launch(args...)
	if !b.isReady() {
		b.Fatalf("the driver has ended: %s", b.driver.errOut.String())
	}
}

// launch starts the driver.
func (b *bed) launch(args ...string) {
	b.Helper()
	args = append([]string{"--endpoint", b.socket, "--pool", b.pool, "--socket", b.control, "--node", "node-1", "--reserve", "0"}, args...)
	b.driver = b.run(os.Args[0], args...)
	if b.conn == nil {
		conn, err := grpc.NewClient("unix://"+b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUnaryInterceptor(bounded))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		b.conn = conn
		b.identity, b.controller, b.node = csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)
	}
}

// isReady waits until the driver is ready or has ended.
func (b *bed) isReady() (ready bool) {
	b.Helper()
	b.until("the driver is ready", func() bool {
		select {
		case <-b.driver.done:
			return true
		default:
		}
		b.conn.ResetConnectBackoff()
		reply, err := b.identity.Probe(b.Context(), &csi.ProbeRequest{})
		ready = err == nil && reply.GetReady().GetValue()
		return ready
	})
	return ready
}

// bounded makes a call that ends with an error if the driver does not answer it.
func bounded(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, o ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return invoke(ctx, method, req, reply, conn, o...)
}

// devicesAre waits until the server has n devices.
func (b *bed) devicesAre(n int) {
	b.Helper()
	var list []client.Device
	var err error
	b.until(fmt.Sprintf("there are %d devices", n), func() bool {
		list, err = b.client.Devices(context.Background())
		return err == nil && len(list) == n
	}, func() string { return fmt.Sprintf("%+v, error %v", list, err) })
}

// isClean waits until the pool has only its directories. The driver may still merge layers.
func (b *bed) isClean() {
	b.Helper()
	var files []string
	b.until("the pool is empty", func() bool {
		var err error
		files, err = filepath.Glob(filepath.Join(b.pool, "*/*"))
		b.ok("list", err)
		return len(files) == 0
	}, func() string { return fmt.Sprintf("left in the pool: %q", files) })
}

// until waits for a condition that causes no event.
func (b *bed) until(what string, ok func() bool, more ...func() string) {
	b.Helper()
	ublktest.Until(b, patience, what, ok, more...)
}

// process is a program that runs beside the test.
type process struct {
	cmd    *exec.Cmd
	errOut bytes.Buffer
	done   chan struct{} // closed when the process has ended
}

// run starts a program, and kills it at the end of the test.
func (b *bed) run(program string, args ...string) *process {
	b.Helper()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), asDriver+"=1")
	p.cmd.Stderr = &p.errOut
	p.cmd.WaitDelay = time.Second // its children may keep its output open
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	b.processes = append(b.processes, p)
	return p
}

// killAll ends all processes that still run. If the test has failed, it prints their
// output.
func (b *bed) killAll() {
	for _, p := range b.processes {
		if p.end(unix.SIGKILL); b.Failed() {
			ublktest.Detail(b, "%s says:\n%s", p.cmd.Path, p.errOut.String())
		}
	}
}

// end sends a signal to the process, and waits for its end.
func (p *process) end(sig unix.Signal) {
	_ = p.cmd.Process.Signal(sig)
	<-p.done
}

// poolOnXFS puts the pool on the machine's disk, where files can share blocks.
func (b *bed) poolOnXFS() {
	b.Helper()
	disk, dir := os.Getenv("UBLK_LOOP_DISK"), filepath.Join(b.dir, "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	b.tool("mkfs.xfs", "-q", "-f", disk)
	b.tool("mount", disk, dir)
	b.Cleanup(func() {
		b.driver.end(unix.SIGTERM) // it has the pool open
		b.devicesAre(0)
		b.tool("umount", dir)
	})
	b.pool = filepath.Join(dir, "pool")
}

// tool runs a program, which must succeed, and returns its output.
func (b *bed) tool(name string, args ...string) string {
	b.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		b.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// mountPoints returns all mount points of this namespace.
func mountPoints(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(text)) {
		list = append(list, strings.Fields(line)[4])
	}
	slices.Sort(list)
	return list
}
