package ring

// File is the file of an entry: a descriptor of the process ([FD]), or a slot of the ring's file
// table ([FixedFile]). It is a type of its own because the same number means one file as a
// descriptor and another file as a slot. An operation on the zero value fails with EBADF.
type File struct {
	next  int32 // the number plus one
	flags uint8 // IOSQE_FIXED_FILE for a slot
}

// FD returns a descriptor of the process as a File.
func FD(fd int) File { return File{next: int32(fd) + 1} }

// FixedFile returns a slot of the file table as a File ([Ring.RegisterFiles]).
func FixedFile(slot uint32) File { return File{next: int32(slot) + 1, flags: IOSQE_FIXED_FILE} }

// Slot returns the slot of a FixedFile.
func (f File) Slot() uint32 { return uint32(f.next - 1) }

// setFile sets the file of the entry.
func (s *SQE) setFile(f File) {
	s.Fd = f.next - 1
	s.Flags = f.flags
}
