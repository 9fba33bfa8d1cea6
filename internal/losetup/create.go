package losetup

import (
	"context"
	"errors"
	"fmt"
	"math"

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
			err = named(err)
			return c.withHint(r.setUpError(err), err)
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
	return fmt.Errorf("%s: failed to set up loop device: %s", r.file, errnoText(err))
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
	if len(cfg.Ref) > loop.MaxRef {
		cfg.Ref = cfg.Ref[:loop.MaxRef]
	}
	if len(r.devices) > 0 {
		id, ok := parseID(devicePath(r.devices[0]))
		if !ok {
			return nil, fmt.Errorf("%s: failed to use device: devices are called %sN", devicePath(r.devices[0]), blockPrefix)
		}
		cfg.ID = &id
	}
	return cfg, nil
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
	if errors.Is(err, unix.EBUSY) {
		cfg.Shared = true
		d, err = c.System.Attach(ctx, r.file, cfg)
	}
	return d, err
}

func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) }

// reuse returns the device that --nooverlap finds with the same part of the file, or nil.
// It returns an error if a device has another part that overlaps.
func (c *Command) reuse(ctx context.Context, r *request) (*client.Device, error) {
	if !r.nooverlap {
		return nil, nil
	}
	all, err := c.System.List()
	if err != nil {
		return nil, listError(err)
	}
	d, same := r.overlapping(ofFiles(all))
	switch {
	case d == nil:
		return nil, nil
	case !same || len(r.devices) > 0:
		return nil, fmt.Errorf("%s: overlapping loop device exists", r.file)
	case d.ReadOnly && !r.readOnly:
		return nil, fmt.Errorf("%s: overlapping read-only loop device exists", r.file)
	case d.Transfer.Name != "" && d.Transfer.Name != "none":
		return nil, fmt.Errorf("%s: overlapping encrypted loop device exists", r.file)
	case !d.Autoclear:
		return d, nil
	}
	if err := c.System.Keep(ctx, d); err != nil {
		return nil, fmt.Errorf("%s: failed to re-use loop device: %s", r.file, errnoText(err))
	}
	return d, nil
}

// overlapping returns the first device of the file whose part overlaps the one to attach,
// and whether the parts are the same.
func (r *request) overlapping(devices []*client.Device) (d *client.Device, same bool) {
	for _, d := range devices {
		switch {
		case !isOf(d, r.file):
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
