package PVE::Storage;

use strict;
use warnings;

# Of PVE 8.4 and 9; STUB_APIVER says which.
use constant APIVER => $ENV{STUB_APIVER} // 13;
use constant APIAGE => APIVER - 9;

use PVE::Storage::DirPlugin;

PVE::Storage::DirPlugin->register();

# As Proxmox loads what is in PVE/Storage/Custom.
sub load {
    my ($modname, $file) = @_;

    require $file;
    die "not derived from PVE::Storage::Plugin\n" if !$modname->isa('PVE::Storage::Plugin');
    my $version = $modname->api();
    die "implements an API version newer than current ($version > " . APIVER . ")\n" if $version > APIVER;
    die "API version too old ($version)\n" if $version < APIVER - APIAGE;
    $modname->register();
}

1;
