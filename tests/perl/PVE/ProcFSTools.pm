package PVE::ProcFSTools;

use strict;
use warnings;

# [device, directory, type, options] of each mount.
sub parse_proc_mounts {
    open(my $fh, '<', '/proc/mounts') or die "can't open /proc/mounts - $!\n";
    return [ map { [ map { s/\\([0-7]{3})/chr(oct($1))/egr } split(/\s+/, $_) ] } <$fh> ];
}

1;
