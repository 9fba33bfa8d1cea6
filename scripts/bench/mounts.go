package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// mounts measures how long it takes until the file system of an image can be used, and to
// give it back, without the start of a program: by a device of ublk-loop, by the kernel's
// loop driver, and by erofs, which needs no device.
func (b *bench) mounts() (err error) {
	back, err := ext4OnRAM()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, back.remove()) }()
	if err := command("modprobe", "erofs"); err != nil {
		return err
	}
	dir := filepath.Dir(back.path)
	image, content, target := filepath.Join(dir, "image.erofs"), filepath.Join(dir, "content"), filepath.Join(dir, "target")
	if err := errors.Join(os.Mkdir(content, 0o755), os.Mkdir(target, 0o755), os.WriteFile(filepath.Join(content, "file"), make([]byte, 1<<20), 0o600)); err != nil {
		return err
	}
	if err := command("mkfs.erofs", image, content); err != nil {
		return err
	}
	server, err := startServe(b.bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.end()) }()
	served := servedRequests()
	for _, way := range []path{served, mountedAt(target, served), mountedAt(target, loopByIoctl()), mountedAt(target, barePath())} {
		a, err := timeAttach(&way, image, b.times)
		if err != nil {
			return err
		}
		b.report.Attach = append(b.report.Attach, a)
	}
	return nil
}

// mountedAt is a path whose device is mounted. The file system detaches the device, unless
// that is one of ublk-loop.
func mountedAt(dir string, p path) path {
	attach, detach := p.attach, p.detach
	p.name += ", mounted"
	p.attach = func(file string) (string, error) {
		device, err := attach(file)
		if err == nil {
			err = unix.Mount(device, dir, "erofs", unix.MS_RDONLY, "")
		}
		return device, err
	}
	p.detach = func(device string) error {
		if err := unix.Unmount(dir, 0); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return detach(device)
	}
	return p
}

// loopByIoctl is the kernel's loop driver, as mount(8) uses it.
func loopByIoctl() path {
	var file *os.File // the loop device, which detaches itself after its last close
	return path{
		name: "loop by ioctl", how: "LOOP_CONFIGURE with LO_FLAGS_AUTOCLEAR",
		attach: func(image string) (device string, err error) {
			control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
			if err != nil {
				return "", err
			}
			defer func() { _ = control.Close() }()
			n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
			if err != nil {
				return "", fmt.Errorf("free loop device: %w", err)
			}
			device = fmt.Sprintf("/dev/loop%d", n)
			if file, err = os.OpenFile(device, os.O_RDONLY, 0); err != nil {
				return "", err
			}
			backing, err := os.Open(image)
			if err != nil {
				return "", err
			}
			defer func() { _ = backing.Close() }()
			config := unix.LoopConfig{Fd: uint32(backing.Fd())}
			config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
			return device, unix.IoctlLoopConfigure(int(file.Fd()), &config)
		},
		detach: func(string) error { return file.Close() },
	}
}

// requests are requests to serve.
type requests struct{ http.Client }

func newRequests() *requests {
	return &requests{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", "/run/ublk-loop/control.sock")
		},
	}}}
}

// send sends a request, and decodes the answer unless it is nil.
func (r *requests) send(method, path string, body []byte, answer any) error {
	req, err := http.NewRequest(method, "http://ublk-loop"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := r.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// servedRequests is ublk-loop by requests to serve, without a program of a client.
func servedRequests() path {
	r := newRequests()
	return path{
		name: "ublk-loop by request", how: "POST /v1/devices",
		attach: func(file string) (string, error) {
			body, err := json.Marshal(map[string]any{"file": file, "config": map[string]bool{"read_only": true}})
			if err != nil {
				return "", err
			}
			var made struct {
				Device string `json:"device"`
			}
			err = r.send(http.MethodPost, "/v1/devices", body, &made)
			return made.Device, err
		},
		detach: func(device string) error {
			return r.send(http.MethodDelete, "/v1/devices/"+strings.TrimPrefix(device, "/dev/ublkb"), nil, nil)
		},
	}
}
