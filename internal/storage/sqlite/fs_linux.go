package sqlite

import (
	"fmt"
	"syscall"
)

// remoteFileSystems are those whose locks or shared memory SQLite can't rely on, by statfs type.
var remoteFileSystems = map[uint32]string{
	0x6969:     "NFS",
	0x517b:     "SMB",
	0xff534d42: "CIFS",
	0xfe534d42: "SMB2",
	0x65735546: "FUSE",
	0x01021997: "9P",
	0x00c36400: "Ceph",
	0x5346414f: "AFS",
	0x0bd00bd0: "Lustre",
	0x47504653: "GPFS",
}

// checkFileSystem is [ErrUnsupported] for a file system in the list. One that is not in it passes, those that
// nobody has thought of too.
func checkFileSystem(dir string) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return translateOS(fmt.Errorf("statfs %s: %w", dir, err))
	}
	return checkFileSystemType(uint32(fs.Type))
}

func checkFileSystemType(kind uint32) error {
	if name, remote := remoteFileSystems[kind]; remote {
		return fmt.Errorf("%w: it is on %s; choose a directory on a local disk", ErrUnsupported, name)
	}
	return nil
}

// free is the room that is left for this user.
func free(dir string) (bytes uint64, ok bool) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, false
	}
	return fs.Bavail * uint64(fs.Bsize), true
}

// diskFull reports whether a write would find no room, so that a failed one can be named for it.
// No inodes left counts as full. If the file system does not answer, it is not.
func diskFull(dir string) bool {
	var fs syscall.Statfs_t
	return syscall.Statfs(dir, &fs) == nil && (fs.Bavail < 64 || fs.Files > 0 && fs.Ffree == 0)
}
