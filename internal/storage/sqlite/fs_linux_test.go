package sqlite

import (
	"errors"
	"strings"
	"testing"
)

func TestFileSystemTypes(t *testing.T) {
	for kind, name := range remoteFileSystems {
		if err := checkFileSystemType(kind); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, kind := range map[string]uint32{"ext4": 0xef53, "xfs": 0x58465342, "btrfs": 0x9123683e, "zfs": 0x2fc12fc1, "tmpfs": 0x01021994, "overlay": 0x794c7630} {
		if err := checkFileSystemType(kind); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
