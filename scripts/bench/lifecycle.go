package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lifecycle measures idle devices: how long attach, detach and the start of a container take, and
// the cost of a device.
func (b *bench) lifecycle() error {
	// A program gets a huge page at its start or does not. The clock of
	// instructions overstates the cost of clearing a huge page.
	err := errors.Join(withoutHugePages(b.attaches), withoutHugePages(b.creates))
	if err != nil || b.check {
		return err
	}
	idle := ublkLoop(b.bin, "", "--queues=2", "--depth=128")
	b.report.Memory, err = idleMemory(&idle, min(2, runtime.NumCPU()), 128)
	return err
}

// attaches measures the ways to attach the same disk.
func (b *bench) attaches() (err error) {
	disk, err := nullBlk()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disk.remove()) }()
	if b.report.StartNs, err = timeStart(b.bin, b.times); err != nil {
		return err
	}
	ways := []path{ublkLoop(b.bin, "")}
	if !b.check {
		ways = append(ways, kernelLoop("off"))
	}
	if b.kublk != "" && !b.check {
		ways = append(ways, kublk(b.kublk, "auto_zc", b.queues, b.depth, "--auto_zc"))
	}
	for _, way := range ways {
		if err := b.attachBy(&way, disk); err != nil {
			return err
		}
	}
	server, err := startServe(b.bin)
	if err != nil {
		return err
	}
	served := ublkLoop(b.bin, servedName)
	return errors.Join(b.attachBy(&served, disk), server.end())
}

// servedName is the name of ublk-loop's path with a server of many devices.
const servedName = "with a server"

func (b *bench) attachBy(way *path, of *backing) error {
	a, err := timeAttach(way, of.path, b.times)
	if err == nil {
		b.report.Attach = append(b.report.Attach, a)
	}
	return err
}

// timeStart runs a command of ublk-loop that does nothing, several times.
func timeStart(bin string, times int) (Percentile, error) {
	var sample []time.Duration
	for range times {
		start := time.Now()
		if err := command(bin, "version"); err != nil {
			return Percentile{}, err
		}
		sample = append(sample, time.Since(start))
	}
	return percentilesOf(sample), nil
}

// timeAttach attaches a file and removes the device, several times.
func timeAttach(p *path, file string, times int) (Attach, error) {
	var attach, detach []time.Duration
	for range times {
		start := time.Now()
		device, err := p.attach(file)
		if err != nil {
			return Attach{}, fmt.Errorf("%s: attach: %w", p.name, err)
		}
		attached := time.Now()
		if err := p.detach(device); err != nil {
			return Attach{}, fmt.Errorf("%s: detach: %w", p.name, err)
		}
		attach = append(attach, attached.Sub(start))
		detach = append(detach, time.Since(attached))
	}
	return Attach{Path: p.name, Times: times, AttachNs: percentilesOf(attach), DetachNs: percentilesOf(detach)}, nil
}

// serve is a server of many devices.
type serve struct{ cmd *exec.Cmd }

// startServe starts a server and waits until it accepts requests for devices.
func startServe(bin string) (*serve, error) {
	dir, err := os.MkdirTemp("", "ublk-loop-bench")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	name := filepath.Join(dir, "notify")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = notify.Close() }()
	s := &serve{exec.Command(bin, "serve")}
	s.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+name)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := notify.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, errors.Join(err, s.end())
	}
	for message := make([]byte, 4096); ; {
		n, err := notify.Read(message)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s serve: %w", bin, err), s.end())
		}
		if strings.Contains(string(message[:n]), "READY=1") {
			return s, nil
		}
	}
}

func (s *serve) end() error { return errors.Join(s.cmd.Process.Signal(unix.SIGTERM), s.cmd.Wait()) }
