package PVE::Storage::DirPlugin;

use strict;
use warnings;

use Cwd ();
use File::Path;

use PVE::ProcFSTools;
use PVE::Storage::Plugin;

use base qw(PVE::Storage::Plugin);

sub type { return 'dir' }

sub plugindata {
    return { content => [ { backup => 1, iso => 1, images => 1 }, { images => 1 } ], format => [ { raw => 1 }, 'raw' ] };
}

sub properties {
    return { map { $_ => {} } qw(path mkdir create-base-path create-subdirs is_mountpoint bwlimit) };
}

sub options {
    return { path => { fixed => 1 }, map({ $_ => { optional => 1 } } qw(content shared disable is_mountpoint mkdir)) };
}

sub check_config {
    my ($class, $storeid, $config, $create, $skip) = @_;

    my $checked = PVE::SectionConfig::check_config($class, $storeid, $config, $create, $skip);
    die "illegal path for directory storage: $checked->{path}\n" if $create && $checked->{path} !~ m|^/[-/a-zA-Z0-9_.@]+$|;
    return $checked;
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    if ($scfg->{is_mountpoint}) {
	my $path = Cwd::realpath($scfg->{path});
	my $mounts = $cache->{mountdata} // PVE::ProcFSTools::parse_proc_mounts();
	die "unable to activate storage '$storeid' - directory is expected to be a mount point but is not mounted\n"
	    if !grep { $_->[1] eq $path } @$mounts;
    }
    mkpath($scfg->{path});
    $class->SUPER::activate_storage($storeid, $scfg, $cache);
}

1;
