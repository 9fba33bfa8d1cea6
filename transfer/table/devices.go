package table

import "fmt"

// A DeviceSize is the size of a file or disk below a stack.
type DeviceSize struct {
	Sectors uint64 // of 512 bytes
	Block   uint32 // logical block in bytes, a power of 2 from 512
}

// Devices returns the files and disks that a stack uses, each once, in the
// order of the text. Two paths of the same disk count as two.
func (s *Stack) Devices() []string {
	var devices []string
	seen := make(map[string]bool)
	for i := range s.Tables {
		for _, l := range s.Tables[i].Lines {
			for _, a := range l.Target.Areas(l.Length) {
				if _, ok := s.Table(a.Device); !ok && !seen[a.Device] {
					seen[a.Device] = true
					devices = append(devices, a.Device)
				}
			}
		}
	}
	return devices
}

// InDevice returns an error of a device, by its number in Devices, with the first line
// that uses it.
func (s *Stack) InDevice(number int, err error) error {
	device := s.Devices()[number]
	for i := range s.Tables {
		t := &s.Tables[i]
		for n, l := range t.Lines {
			for _, a := range l.Target.Areas(l.Length) {
				if a.Device == device {
					return inLine(t.Name, n+1, l.Target.Type(), badArgument("device", device, err))
				}
			}
		}
	}
	return err
}

// CheckDevices refuses a stack whose lines don't fit their devices, whose
// sizes are given in the order of Devices. It returns the size of the stack.
func (s *Stack) CheckDevices(sizes []DeviceSize) (DeviceSize, error) {
	c := deviceCheck{stack: s, outside: make(map[string]DeviceSize)}
	for i, device := range s.Devices() {
		c.outside[device] = sizes[i]
	}
	for i := range s.Tables {
		size, err := c.table(&s.Tables[i])
		if err != nil {
			return DeviceSize{}, err
		}
		c.tables = append(c.tables, size)
	}
	return c.tables[len(c.tables)-1], nil
}

// deviceCheck is the state of CheckDevices.
type deviceCheck struct {
	stack   *Stack
	outside map[string]DeviceSize
	tables  []DeviceSize // of the tables so far
}

func (c *deviceCheck) size(device string) DeviceSize {
	if i, ok := c.stack.Table(device); ok {
		return c.tables[i]
	}
	return c.outside[device]
}

// table returns the size of a table. The kernel accepts some tables that it
// then cannot serve (validate_hardware_logical_block_alignment in
// drivers/md/dm-table.c looks neither at the sector size of crypt nor at
// chunks); all that it refuses is refused here.
func (c *deviceCheck) table(t *Table) (DeviceSize, error) {
	size := DeviceSize{t.Sectors(), sectorSize}
	for i := range t.Lines {
		l := &t.Lines[i]
		block, err := c.line(l)
		if err != nil {
			return size, inLine(t.Name, i+1, l.Target.Type(), err)
		}
		size.Block = max(size.Block, block)
	}
	if err := aligned("size", size.Sectors, size.Block); err != nil {
		return size, &StackError{Table: t.Name, Err: err}
	}
	return size, nil
}

// line returns the logical block of a line.
func (c *deviceCheck) line(l *Line) (uint32, error) {
	block, err := c.areas(l)
	if err != nil {
		return 0, err
	}
	if err := aligned("start of the line", l.Start, block); err != nil {
		return 0, err
	}
	if err := aligned("length of the line", l.Length, block); err != nil {
		return 0, err
	}
	switch t := l.Target.(type) {
	case *Striped:
		return block, aligned("chunk", uint64(t.Chunk), block)
	case *Snapshot:
		return block, aligned("chunk", uint64(t.Chunk), block)
	}
	return block, nil
}

// areas checks the devices of a line, and returns the logical block of the line.
func (c *deviceCheck) areas(l *Line) (uint32, error) {
	if t, ok := l.Target.(*Verity); ok {
		return t.sizes(c, l)
	}
	areas := l.Target.Areas(l.Length)
	block := l.Target.block()
	for _, a := range areas {
		block = max(block, c.size(a.Device).Block)
	}
	for _, a := range areas {
		if err := fits(a, c.size(a.Device), block); err != nil {
			return 0, badArgument("device", a.Device, err)
		}
	}
	return block, nil
}

// fits refuses what device_area_is_invalid in drivers/md/dm-table.c does, and
// an area of a device of size 0.
func fits(a Area, size DeviceSize, block uint32) error {
	if a.Start > size.Sectors || a.Length > size.Sectors-a.Start {
		return fmt.Errorf("%d sectors from %d: the device has %d: %w", a.Length, a.Start, size.Sectors, ErrInvalid)
	}
	if err := aligned("start", a.Start, block); err != nil {
		return err
	}
	return aligned("length", a.Length, block)
}

// aligned refuses a number of sectors that is not a multiple of a block.
func aligned(what string, sectors uint64, block uint32) error {
	if unit := uint64(block / sectorSize); sectors%unit != 0 {
		return fmt.Errorf("%s %d: not a multiple of %d, a logical block of %d bytes: %w", what, sectors, unit, block, ErrInvalid)
	}
	return nil
}

// SizeOf returns the number of sectors of a device that is a table of the stack, or 0.
func (s *Stack) SizeOf(device string) uint64 {
	if i, ok := s.Table(device); ok {
		return s.Tables[i].Sectors()
	}
	return 0
}

// BlockOf returns the size of the largest block of the targets of a device that is a table of the stack, in
// bytes, or 0.
func (s *Stack) BlockOf(device string) (block uint32) {
	if i, ok := s.Table(device); ok {
		for _, l := range s.Tables[i].Lines {
			block = max(block, l.Target.block())
		}
	}
	return block
}
