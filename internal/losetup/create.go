package losetup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/internal/report"
	"github.com/ublk-loop/ublk-loop/loop"
)

// create attaches a file, or with --nooverlap finds the device that has it.
func (c *Command) create(ctx context.Context, r *request) error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	d, err := c.reuse(ctx, r)
	if err != nil {
		return err
	}
	if d == nil {
		if d, err = c.attach(ctx, r, *cfg); err != nil {
			return err
		}
	}
	if r.show {
		if _, err := fmt.Fprintln(c.Out, d.Device); err != nil {
			return err
		}
		if report.MayBeClosed(c.Out) {
			c.warn("%s: the device is %s, but standard output is closed or discarded", r.file, d.Device)
		}
	}
	c.warnSize(r)
	return nil
}

// setUpError is losetup's error of a file that cannot be attached.
func (r *request) setUpError(err error) error {
	return &failure{r.file + ": failed to set up loop device", err}
}

// named turns the error of a number that is taken into that of a loop device in use.
func named(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return unix.EBUSY
	}
	return err
}

// config returns the configuration of the device to make.
func (r *request) config() (*loop.Config, error) {
	switch {
	case r.blockSize > math.MaxUint32:
		return nil, r.setUpError(unix.EINVAL)
	case r.offset > math.MaxInt64, r.sizeLimit > math.MaxInt64:
		return nil, r.setUpError(unix.EOVERFLOW)
	}
	cfg := &loop.Config{
		Offset: r.offset, SizeLimit: r.sizeLimit, SectorSize: uint32(r.blockSize), ReadOnly: r.readOnly, WholeSectors: true,
		PartScan: r.partScan, DirectIO: loop.SwitchAuto, ZeroCopy: loop.SwitchAuto, Ref: r.ref,
	}
	if r.directIO != "" {
		cfg.DirectIO = r.directIO
	}
	cfg.Ref = cut(cfg.Ref, loop.MaxRef)
	if len(r.devices) > 0 {
		id, ok := parseID(devicePath(r.devices[0]))
		if !ok {
			return nil, fmt.Errorf("%s: failed to use device: devices are called %sN", devicePath(r.devices[0]), blockPrefix)
		}
		cfg.ID = &id
	}
	return cfg, nil
}

// cut returns the characters of a text that fit into a number of bytes. As losetup, it leaves out the rest.
func cut(text string, size int) string {
	if len(text) <= size {
		return text
	}
	for size > 0 && !utf8.RuneStart(text[size]) {
		size--
	}
	return text[:size]
}

// attach attaches a file. As losetup it takes no heed of other devices of the file, and
// attaches a file read-only that cannot be written to. The offset may also require that.
func (c *Command) attach(ctx context.Context, r *request, cfg loop.Config) (*client.Device, error) {
	unaligned := cfg.Offset%512 != 0
	cfg.ReadOnly = cfg.ReadOnly || unaligned
	if unaligned && !r.readOnly {
		c.warn("%s: Warning: the offset is not a multiple of 512; the device is read-only.", r.file)
	}
	d, err := c.System.Attach(ctx, r.file, cfg)
	if !cfg.ReadOnly && isReadOnly(err) {
		cfg.ReadOnly = true
		d, err = c.System.Attach(ctx, r.file, cfg)
	}
	if errors.Is(err, unix.EBUSY) && r.nooverlap {
		if other, err := c.reuseSoon(ctx, r); other != nil || err != nil {
			return other, err
		}
	}
	if errors.Is(err, unix.EBUSY) {
		cfg.Shared = true
		d, err = c.System.Attach(ctx, r.file, cfg)
	}
	if err != nil {
		return nil, r.setUpError(named(err))
	}
	return d, nil
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) }

// reusePatience bounds the wait for a device that is being made or removed, and makingPatience the
// one for a device that may not be listed yet. reusePause is between two looks.
const (
	reusePatience  = 10 * time.Second
	makingPatience = 5 * time.Second
	reusePause     = 10 * time.Millisecond
)

// reuseSoon is reuse for a file that is in use. Another call with --nooverlap may have locked it for a
// device that is not listed yet.
func (c *Command) reuseSoon(ctx context.Context, r *request) (d *client.Device, err error) {
	for over := time.Now().Add(makingPatience); d == nil && err == nil && time.Now().Before(over); {
		if d, err = c.reuse(ctx, r); d == nil && err == nil {
			err = pause(ctx)
		}
	}
	return d, err
}

// pause waits for reusePause. It returns the cause if the context ends before.
func pause(ctx context.Context) error {
	select {
	case <-time.After(reusePause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reuse returns the device that --nooverlap finds with the same part of the file, or nil. It returns
// an error if a device has another part that overlaps. A device that is being made is listed before
// its server knows it, and one that is being removed is listed until the end. reuse waits for both.
func (c *Command) reuse(ctx context.Context, r *request) (*client.Device, error) {
	if !r.nooverlap {
		return nil, nil
	}
	for over := time.Now().Add(reusePatience); ; {
		d, err := c.find(ctx, r)
		if !errors.Is(err, unix.ENODEV) || time.Now().After(over) {
			return d, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// find finds a device for --nooverlap, and takes it.
func (c *Command) find(ctx context.Context, r *request) (*client.Device, error) {
	all, err := c.System.List()
	if err != nil {
		return nil, listError(err)
	}
	d, same := r.overlapping(ofFiles(all))
	if d == nil {
		return nil, nil
	}
	return d, c.take(ctx, r, d, same)
}

// take takes a device for --nooverlap. It returns an error that wraps ENODEV if the device is being
// made or removed, and another error if the device cannot be taken.
func (c *Command) take(ctx context.Context, r *request, d *client.Device, same bool) error {
	switch {
	case d.MajMin == "":
		return r.reuseError(unix.ENODEV)
	case !same || len(r.devices) > 0:
		return fmt.Errorf("%s: overlapping loop device exists", r.file)
	case d.ReadOnly && !r.readOnly:
		return fmt.Errorf("%s: overlapping read-only loop device exists", r.file)
	case d.Transfer.Name != "" && d.Transfer.Name != "none":
		return fmt.Errorf("%s: overlapping encrypted loop device exists", r.file)
	case !d.Autoclear:
		return nil
	}
	if err := c.System.Keep(ctx, d); err != nil {
		return r.reuseError(err)
	}
	return nil
}

// reuseError is losetup's error of a device that --nooverlap cannot take.
func (r *request) reuseError(err error) error {
	return &failure{r.file + ": failed to re-use loop device", err}
}

// overlapping returns the first device of the file whose part overlaps the one to attach,
// and whether the parts are the same. A device that has lost its disk with its server is none.
func (r *request) overlapping(devices []*client.Device) (d *client.Device, same bool) {
	for _, d := range devices {
		switch {
		case !isOf(d, r.file), d.MajMin == "" && d.PID == 0:
		case d.Offset == r.offset && d.SizeLimit == r.sizeLimit:
			return d, true
		case d.SizeLimit != 0 && r.offset >= d.Offset+d.SizeLimit:
		case r.sizeLimit != 0 && r.offset+r.sizeLimit <= d.Offset:
		default:
			return d, false
		}
	}
	return nil, false
}

// warnSize warns of a file that is not a number of whole sectors.
func (c *Command) warnSize(r *request) {
	size := r.sizeLimit
	if size == 0 {
		var st unix.Stat_t
		if unix.Stat(r.file, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFBLK {
			return
		}
		size = uint64(st.Size) - r.offset
	}
	switch {
	case size < 512:
		c.warn("%s: Warning: file is smaller than 512 bytes; the loop device may be useless or invisible for system tools.", r.file)
	case size%512 != 0:
		c.warn("%s: Warning: file does not end on a 512-byte sector boundary; the remaining end of the file will be ignored.", r.file)
	}
}
