package Filesys::Df::Stub;

use strict;
use warnings;

# Bytes, by df(1); undef where it has none.
sub df {
    my ($path) = @_;

    open(my $fh, '-|', 'df', '-B1', '--output=size,used,avail', $path) or return undef;
    my (undef, $line) = <$fh>;
    close($fh) or return undef;
    my ($total, $used, $avail) = ($line // '') =~ m/(\d+)\s+(\d+)\s+(\d+)/ or return undef;
    return { total => $total, used => $used, avail => $avail };
}

1;
