package PVE::Tools;

use strict;
use warnings;

use base 'Exporter';
our @EXPORT_OK = qw(run_command file_get_contents file_set_contents split_list);

# run_command($cmd, timeout => s, errmsg => text, quiet => 1): dies unless it ends with 0.
sub run_command {
    my ($cmd, %param) = @_;

    my $pid = fork() // die "fork failed: $!\n";
    if (!$pid) {
	exec @$cmd or exit 127;
    }
    my $late = 0;
    local $SIG{ALRM} = sub { $late = 1; kill 'KILL', $pid };
    alarm($param{timeout} // 0);
    waitpid($pid, 0);
    my $code = $?;
    alarm(0);
    my $what = $param{errmsg} // "command '@$cmd' failed";
    die "$what: got timeout\n" if $late;
    die "$what: exit code " . ($code >> 8) . "\n" if $code;
    return 0;
}

sub file_get_contents {
    my ($file) = @_;

    open(my $fh, '<', $file) or die "can't open '$file' - $!\n";
    local $/;
    my $text = <$fh>;
    return $text // '';
}

sub file_set_contents {
    my ($file, $text, $perm) = @_;

    my $tmp = "$file.tmp.$$";
    sysopen(my $fh, $tmp, 0101 | 0200, $perm // 0644) or die "can't open '$tmp' - $!\n";
    print $fh $text or die "can't write '$tmp' - $!\n";
    close($fh) or die "can't close '$tmp' - $!\n";
    rename($tmp, $file) or die "can't rename '$tmp' - $!\n";
}

sub split_list {
    return grep { length } split(/[,;\s]+/, $_[0] // '');
}

1;
